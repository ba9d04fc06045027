package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"podlane/test/bed"
	"podlane/test/gitlabsim"
	"podlane/test/stack/stackenv"
)

// The three kinds of grants, as a job's script finds them: in memory, readable
// by it alone, out of its log, and gone from what scripts of the helper see.
func TestGrants(t *testing.T) {
	t.Parallel()
	needsStack(t)
	policy := filepath.Join(t.TempDir(), "policy.json")
	const text = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:GetObject"],"Resource":["arn:aws:s3:::` + stackenv.S3Bucket + `/grants/*"]}]}`
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	grant := func(name string, values map[string]string) map[string]string {
		values["name"], values["auth_role"] = quoted(name), quoted("podlane-grant-"+name)
		return values
	}
	b := newVaultBed(t, nil, bed.Settings{
		"[grants]#1": grant("db", map[string]string{
			"kind": `"kv"`, "mount": `"kv-@BED@"`, "path": `"ci/{project_id}/db"`, "field": `"password"`, "variable": `"DB_PASSWORD"`,
		}),
		"[grants]#2": grant("pem", map[string]string{
			"kind": `"kv"`, "mount": `"kv-@BED@"`, "path": `"pem"`, "field": `"key"`, "variable": `"DEPLOY_KEY"`, "file": "true",
		}),
		"[grants]#3": grant("cluster", map[string]string{
			"kind": `"kubeconfig"`, "mount": `"kubernetes-@BED@"`, "role": `"podlane-grant-cluster"`, "namespace": quoted(stackenv.Namespace), "work_namespace": `"{environment}"`,
		}),
		"[grants]#4": grant("bucket", map[string]string{
			"kind": `"aws"`, "mount": `"aws-@BED@"`, "role": `"podlane-grant-bucket"`, "region": quoted(stackenv.S3Region),
		}),
	},
		"--grant", "name=db,kind=kv,path=ci/{project_id}/db", "--grant", "name=pem,kind=kv,path=pem",
		"--grant", "name=cluster,kind=kubeconfig,account=podlane,namespaces="+stackenv.Namespace,
		"--grant", "name=bucket,kind=aws,policy-file="+policy)
	p := project(t, b, nil)
	secret := "granted-" + randomHex()
	write(t, b, "ci/1/db", "password", secret)
	write(t, b, "pem", "key", "first line\nsecond line\n")

	o := runOn(t, b, gitlabsim.JobSpec{
		Project:     p,
		Variables:   []gitlabsim.Variable{{Key: "PODLANE_GRANTS", Value: "db, pem cluster,bucket"}},
		Environment: &gitlabsim.Environment{Name: "review/7"},
		Script: []string{
			// A variable, out of the log in any form.
			`echo password is $DB_PASSWORD.; printf %s "$DB_PASSWORD" | base64; echo ${#DB_PASSWORD} characters`,
			"wc -l < $DEPLOY_KEY; stat -c %a $DEPLOY_KEY; stat -f -c %T $DEPLOY_KEY",
			// What a client makes of the kubeconfig: the account may look at pods.
			`field() { sed -n 's/.*"'$1'": "\(.*\)".*/\1/p' $KUBECONFIG; }`,
			"field certificate-authority-data | base64 -d > ca.pem",
			`{ printf 'Authorization: Bearer '; cat "$(field tokenFile)"; } > /tmp/header`,
			"curl -sS --cacert ca.pem -H @/tmp/header $(field server)/api/v1/namespaces/" + stackenv.Namespace + "/pods -o /tmp/pods; grep -o PodList /tmp/pods",
			"field namespace",
			"base64 -w0 /tmp/header",
			// What an AWS SDK makes of its configuration.
			`$(sed -n '/^.default/,/^$/s/credential_process = //p' $AWS_CONFIG_FILE) > /tmp/aws.json`,
			`grep -o '"Version":1' /tmp/aws.json; grep -c Expiration /tmp/aws.json; cat /tmp/aws.json`,
			"grep region $AWS_CONFIG_FILE | sort -u",
		},
		AfterScript: []string{"echo after_script has ${#DB_PASSWORD} characters"},
	})
	o.succeeded(t,
		"password is [redacted].", "20 characters", "\n2\n600\ntmpfs\n", "PodList", "\nreview-7-", `"Version":1`, "region = "+stackenv.S3Region,
		"after_script has 20 characters")
	o.doesNotLog(t, secret)
	for _, line := range strings.Split(o.trace, "\n") {
		if strings.Contains(line, `"SecretAccessKey"`) && !strings.Contains(line, `"SecretAccessKey":"[redacted]"`) {
			t.Errorf("the log shows a secret key")
		}
	}
}

// A kubeconfig goes on working in a script that outlives its token.
func TestGrantIsRenewed(t *testing.T) {
	t.Parallel()
	needsStack(t)
	b := newVaultBed(t, nil, bed.Settings{
		"vault": {"address": quoted(shorten(t, shared.Stack.VaultAddress, 6))},
		"[grants]#1": {
			"name": `"cluster"`, "kind": `"kubeconfig"`, "auth_role": `"podlane-grant-cluster"`, "mount": `"kubernetes-@BED@"`,
			"role": `"podlane-grant-cluster"`, "namespace": quoted(stackenv.Namespace),
		},
	}, "--grant", "name=cluster,kind=kubeconfig,account=podlane,namespaces="+stackenv.Namespace)
	o := runOn(t, b, gitlabsim.JobSpec{
		Variables: []gitlabsim.Variable{{Key: "PODLANE_GRANTS", Value: "cluster"}},
		Script: []string{
			`field() { sed -n 's/.*"'$1'": "\(.*\)".*/\1/p' $KUBECONFIG; }`,
			"field certificate-authority-data | base64 -d > ca.pem",
			`try() { { printf 'Authorization: Bearer '; cat "$(field tokenFile)"; } > /tmp/header; curl -sS --cacert ca.pem -H @/tmp/header $(field server)/api/v1/namespaces/` + stackenv.Namespace + `/pods -o /tmp/pods; grep -o PodList /tmp/pods; }`,
			`try; cat "$(field tokenFile)" > /tmp/first`,
			`while cmp -s "$(field tokenFile)" /tmp/first; do sleep 0.2; done; echo it is another one; try`,
		},
	})
	o.succeeded(t, "\nPodList\n", "\nit is another one\nPodList\n")
}
