// Package pod is where client-go stops: it plans a job's pod, launches it,
// waits until it works, runs programs in it and deletes it.
package pod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"podlane/executor/settings"
	"podlane/internal/joblog"
	"podlane/internal/version"
)

// Client talks to the API server about pods and secrets of one namespace, and
// about nothing else. It is built on the bare REST client: the full clientset
// registers every API group at start, 20 ms in each of a job's ten processes.
type Client struct {
	rest      rest.Interface
	config    *rest.Config
	params    runtime.ParameterCodec
	namespace string
	places    Places // what lists go over, if not namespace
	timeout   time.Duration
	budget    time.Duration
	tokens    TokenSource
	log       *joblog.Log
}

// Connect reads the access data that settings name. It sends nothing yet. With
// a source of tokens these take the place of what a kubeconfig or the pod that
// podlane runs in has to prove who we are.
func Connect(s *settings.Settings, tokens TokenSource, log *joblog.Log) (*Client, error) {
	// The libraries report broken streams on stderr, which is the job log. We
	// report them ourselves where they matter.
	klog.SetLogger(logr.Discard())
	config, err := restConfig(s, tokens != nil)
	if err != nil {
		return nil, err
	}
	if tokens != nil {
		config = rest.AnonymousClientConfig(config)
		config.Wrap(withTokens(tokens))
	}
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register kubernetes types: %w", err)
	}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	config.GroupVersion = &corev1.SchemeGroupVersion
	config.APIPath = "/api"
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.UserAgent = "podlane/" + version.String()
	// A stage makes a handful of requests: a limit would only delay them.
	config.QPS = -1
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("set up access to kubernetes: %w", err)
	}
	return &Client{
		rest:      client,
		config:    config,
		params:    runtime.NewParameterCodec(scheme),
		namespace: s.Kubernetes.Namespace,
		timeout:   s.Kubernetes.RequestTimeout.D(),
		budget:    s.Kubernetes.RetryBudget.D(),
		tokens:    tokens,
		log:       log,
	}, nil
}

func restConfig(s *settings.Settings, tokens bool) (*rest.Config, error) {
	switch k := s.Kubernetes; {
	case k.Server != "" && tokens:
		return &rest.Config{Host: k.Server, TLSClientConfig: rest.TLSClientConfig{CAFile: k.CAFile}}, nil
	case k.Kubeconfig != "":
		rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: k.Kubeconfig}
		overrides := &clientcmd.ConfigOverrides{CurrentContext: k.Context}
		config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig()
		if err != nil {
			return nil, fmt.Errorf("read kubeconfig %s: %w", k.Kubeconfig, err)
		}
		return config, nil
	}
	config, err := rest.InClusterConfig()
	if errors.Is(err, rest.ErrNotInCluster) {
		missing := "kubernetes.kubeconfig is"
		if tokens {
			missing = "kubernetes.server and kubernetes.kubeconfig are"
		}
		return nil, fmt.Errorf("no access to kubernetes: %s not set and this process does not run in a pod", missing)
	}
	return config, err
}

// Cluster is what others need to find the API server and to know it again.
type Cluster struct {
	Server string
	// CA is in PEM; empty means the system's.
	CA []byte
}

// ClusterOf tells which cluster the settings name.
func ClusterOf(s *settings.Settings) (Cluster, error) {
	config, err := restConfig(s, true)
	if err != nil {
		return Cluster{}, err
	}
	if err := rest.LoadTLSFiles(config); err != nil {
		return Cluster{}, fmt.Errorf("read the CA of the API server: %w", err)
	}
	return Cluster{Server: config.Host, CA: config.CAData}, nil
}

// retry repeats op while the API server can't be reached or asks for patience,
// within the budget. A request that was refused for a reason is not repeated.
func (c *Client) retry(ctx context.Context, what string, op func(context.Context) error) error {
	said := false
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		if err := c.haveToken(ctx); err != nil {
			return struct{}{}, backoff.Permanent(err)
		}
		attempt, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		err := c.settled(attempt, op)
		if err != nil && (ctx.Err() != nil || !transient(err)) {
			return struct{}{}, backoff.Permanent(err)
		}
		return struct{}{}, err
	},
		backoff.WithBackOff(newBackOff()),
		backoff.WithMaxElapsedTime(max(c.budget, time.Nanosecond)),
		backoff.WithNotify(func(err error, _ time.Duration) {
			if !said {
				c.log.Warnf("the cluster does not answer, trying again for up to %s: %s: %v", c.budget, what, err)
			}
			said = true
		}),
	)
	var permanent *backoff.PermanentError
	if errors.As(err, &permanent) {
		err = permanent.Unwrap()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// haveToken waits for a token if there is none: the time that takes must not
// count as the request's.
func (c *Client) haveToken(ctx context.Context) error {
	if c.tokens == nil {
		return nil
	}
	if _, err := c.tokens.Token(ctx); err != nil {
		return &TokenError{err}
	}
	return nil
}

// newBackOff starts quickly, since most outages are a connection that was cut,
// and spreads the thousand processes of a busy runner over several seconds.
func newBackOff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = 100 * time.Millisecond
	b.MaxInterval = 5 * time.Second
	return b
}

// transient says whether the same request may work in a moment.
func transient(err error) bool {
	var token *TokenError
	if errors.As(err, &token) {
		return false
	}
	var starting *startingError
	if errors.As(err, &starting) {
		return true
	}
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return apierrors.IsTooManyRequests(err) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) ||
			apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err) || status.Status().Code == http.StatusBadGateway
	}
	var netErr net.Error
	return utilnet.IsConnectionRefused(err) || utilnet.IsConnectionReset(err) || utilnet.IsProbableEOF(err) ||
		utilnet.IsHTTP2ConnectionLost(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.As(err, &netErr)
}

// Get returns a pod.
func (c *Client) Get(ctx context.Context, name string) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	err := c.retry(ctx, "get pod "+name, func(ctx context.Context) error {
		return c.rest.Get().Namespace(c.namespace).Resource("pods").Name(name).Do(ctx).Into(pod)
	})
	return pod, err
}

// Look is Get without patience: whatever comes of it, it is not repeated.
func (c *Client) Look(ctx context.Context, name string) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	pod := &corev1.Pod{}
	err := c.settled(ctx, func(ctx context.Context) error {
		return c.rest.Get().Namespace(c.namespace).Resource("pods").Name(name).Do(ctx).Into(pod)
	})
	return pod, err
}

// WhyLost looks at the pod behind a broken stream. A nil error means that the
// pod is well, or that the API server can't tell at the moment: it is worth
// connecting again. Anything else is a *Failure, or a *TokenError.
func (c *Client) WhyLost(ctx context.Context, name string) error {
	pod, err := c.Look(ctx, name)
	var token *TokenError
	if errors.As(err, &token) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		return token
	}
	var lost *Failure
	switch {
	case err == nil:
		lost = Lost(pod)
	case apierrors.IsNotFound(err):
		lost = &Failure{Reason: "pod lost", Detail: "the pod " + name + " is not there: it was deleted, or was never started"}
		if word := c.lastWord(ctx, name); word != "" {
			lost.Detail = word
		}
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		lost = &Failure{Reason: "forbidden", Detail: statusMessage(err), Err: err}
	}
	if lost == nil {
		return nil
	}
	return lost
}

// Delete removes a pod, and with it what it owns. A pod that isn't there is
// fine. The grace period is in seconds; 0 takes the pod out of the API at once.
func (c *Client) Delete(ctx context.Context, name string, grace int64) error {
	return c.delete(ctx, "pods", name, &metav1.DeleteOptions{GracePeriodSeconds: &grace})
}

func (c *Client) delete(ctx context.Context, resource, name string, options *metav1.DeleteOptions) error {
	return c.retry(ctx, "delete "+resource+" "+name, func(ctx context.Context) error {
		err := c.rest.Delete().Namespace(c.namespace).Resource(resource).Name(name).Body(options).Do(ctx).Error()
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
}

// Logs returns the last lines of a container's output, at most limit bytes.
func (c *Client) Logs(ctx context.Context, pod, container string, lines, limit int64) (string, error) {
	var text []byte
	err := c.retry(ctx, "read log of container "+container, func(ctx context.Context) (err error) {
		text, err = c.rest.Get().Namespace(c.namespace).Resource("pods").Name(pod).SubResource("log").
			VersionedParams(&corev1.PodLogOptions{Container: container, TailLines: &lines, LimitBytes: &limit}, c.params).
			DoRaw(ctx)
		return err
	})
	return string(text), err
}
