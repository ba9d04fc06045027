package podagent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxDelivery bounds what is delivered at once: a few kilobytes each.
const maxDelivery = 1 << 20

// Delivery is what a job is granted: podlane-helper's grant command reads it as
// JSON from stdin. A later delivery replaces files of the same name, so a
// program that reads a file anew gets the credential that is good now.
type Delivery struct {
	// Files by path below Layout.Grants.
	Files map[string]string `json:"files"`
	// Env are variables for the scripts that are started from now on.
	Env map[string]string `json:"env"`
}

// GrantsDir is where a job's pod has what it was granted.
func GrantsDir() string { return DefaultLayout().Grants }

// granted holds the variables of the last delivery.
func (l Layout) granted() string { return filepath.Join(l.Grants, ".env.json") }

// ReceiveGrants writes a delivery to files that the container's user alone can
// read. Each appears whole, and the variables come last: whoever sees them finds
// the files that they name.
func ReceiveGrants(l Layout, in io.Reader) error {
	var delivery Delivery
	if err := json.NewDecoder(io.LimitReader(in, maxDelivery)).Decode(&delivery); err != nil {
		return errors.New("what was granted did not arrive whole") // the decoder may quote it
	}
	if info, err := os.Stat(l.Grants); err != nil || !info.IsDir() {
		return fmt.Errorf("%s is not there: this pod was started without grants", l.Grants)
	}
	for _, name := range slices.Sorted(maps.Keys(delivery.Files)) {
		if !filepath.IsLocal(name) {
			return fmt.Errorf("the file %q does not lie below %s", name, l.Grants)
		}
		if err := writeGranted(filepath.Join(l.Grants, name), delivery.Files[name]); err != nil {
			return err
		}
	}
	env, err := json.Marshal(delivery.Env)
	if err != nil {
		return err
	}
	return writeGranted(l.granted(), string(env))
}

func writeGranted(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write what was granted: %w", err)
	}
	if err := writeWhole(path, strings.NewReader(content), 0o600); err != nil {
		return fmt.Errorf("write what was granted: %w", err)
	}
	return nil
}

// AWSCredentials is the file below Layout.Grants from which a grant's
// credential_process answers.
func AWSCredentials(grant string) string { return filepath.Join(grant, "credentials.json") }

// PrintAWSCredentials answers a credential_process of the AWS SDKs
// (https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html).
func PrintAWSCredentials(l Layout, grant string, out io.Writer) error {
	if !filepath.IsLocal(grant) {
		return fmt.Errorf("%q is not the name of a grant", grant)
	}
	f, err := os.Open(filepath.Join(l.Grants, AWSCredentials(grant)))
	if err != nil {
		return fmt.Errorf("this job was not granted %s: %w", grant, err)
	}
	defer f.Close()
	_, err = io.Copy(out, f)
	return err
}

// grantedEnv returns the variables that were granted, as an environment. There
// are none in a container without grants.
func (l Layout) grantedEnv() []string {
	data, err := os.ReadFile(l.granted())
	if err != nil {
		return nil
	}
	var vars map[string]string
	if json.Unmarshal(data, &vars) != nil {
		return nil
	}
	env := make([]string, 0, len(vars))
	for _, key := range slices.Sorted(maps.Keys(vars)) {
		env = append(env, key+"="+vars[key])
	}
	return env
}
