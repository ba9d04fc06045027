package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"podlane/executor/pod"
)

const (
	nameAPIServer = "kubernetes"
	nameAccess    = "access to kubernetes"
)

// apiServer finds out whether the API server can be reached at all.
func (e *examination) apiServer() []check {
	var read reading
	return []check{
		{name: nameAPIServer, run: func(ctx context.Context) finding {
			read.asked = time.Now()
			server, err := pod.AskServer(ctx, e.s)
			read.answered, read.theirs = time.Now(), server.Time
			if err != nil {
				return failed(err, tlsHint(err))
			}
			if server.Version == "" {
				return fine("%s, which tells its version to nobody", server.Address)
			}
			return fine("%s at %s", server.Version, server.Address)
		}},
		clockOf(nameAPIServer, nameAPIServer, &read),
	}
}

// cluster finds out what podlane may do there, and what becomes of its pods.
func (e *examination) cluster() []check {
	checks := []check{{name: nameAccess, needs: e.clusterNeeds(), run: func(ctx context.Context) finding {
		client, token, err := e.try.Cluster(ctx)
		if err != nil {
			return failed(err, "")
		}
		e.client = client
		return e.judgeAccess(ctx, token.Namespace, token.ServiceAccount, token.Expires)
	}}}
	namespaces, err := e.try.Namespaces()
	if err != nil {
		return append(checks, check{name: "namespace", run: func(context.Context) finding {
			return failed(fmt.Errorf("kubernetes.namespace: %w", err), "an id_token of a job tells more facts")
		}})
	}
	for _, namespace := range namespaces {
		checks = append(checks, check{name: "rights in namespace " + namespace, needs: []string{nameAccess}, run: func(ctx context.Context) finding {
			lacks, err := e.client.In(namespace).Lacking(ctx, e.s)
			if err != nil {
				return failed(err, "")
			}
			return judgeRights(lacks)
		}})
	}
	return append(checks, check{name: "pod templates", needs: []string{"settings", nameAccess}, run: func(ctx context.Context) finding {
		if e.s.Kubernetes.NamespacePerJob {
			return notTried("", "the API server judges pods only in a namespace that is there, and each job gets one of its own")
		}
		return judgeTemplates(namespaces[0], e.client.In(namespaces[0]).DryRunTemplates(ctx, e.s), 1+len(e.s.PodTemplates))
	}})
}

func (e *examination) clusterNeeds() []string {
	if e.s.Vault.ForKubernetes() {
		return []string{nameAPIServer, "login for " + useKubernetes}
	}
	return []string{nameAPIServer}
}

// judgeAccess says who we are on the cluster. An account that may do everything
// works, and makes every mistake of podlane's one of the whole cluster.
func (e *examination) judgeAccess(ctx context.Context, namespace, account string, ends time.Time) finding {
	who := "as the pod that this runs in"
	switch {
	case account != "":
		who = fmt.Sprintf("as %s/%s until %s, by vault.kubernetes", namespace, account, clock(ends))
	case e.s.Kubernetes.Kubeconfig != "":
		who = "with the kubeconfig " + e.s.Kubernetes.Kubeconfig
	}
	all, err := e.client.MayEverything(ctx)
	switch {
	case err != nil:
		return failed(fmt.Errorf("%s: %w", who, err), "are the credentials of this cluster, and have they ended?")
	case all:
		return warn("give podlane an account of its own: deploy/rbac.yaml", "%s, which may do everything on this cluster", who)
	}
	return fine("%s", who)
}

func judgeRights(lacks []pod.Lack) finding {
	if len(lacks) == 0 {
		return fine("all that podlane uses")
	}
	var names, files []string
	for _, l := range lacks {
		names = append(names, l.String())
		if len(files) == 0 || files[len(files)-1] != l.Where {
			files = append(files, l.Where)
		}
	}
	return fail("apply "+strings.Join(files, " and "), "missing: %s", strings.Join(names, ", "))
}

func judgeTemplates(namespace string, problems []pod.TemplateProblem, of int) finding {
	if len(problems) == 0 {
		return fine("the API server would take the pods of all %d in namespace %s (dry run)", of, namespace)
	}
	var texts []string
	for _, p := range problems {
		texts = append(texts, templateProblem(p))
	}
	return fail("see docs/pod-templates.md", "%s", strings.Join(texts, "; "))
}
