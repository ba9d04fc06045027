package bed

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Kube looks at the cluster as an administrator: for assertions, never for the
// product.
type Kube struct {
	rest      rest.Interface
	params    runtime.ParameterCodec
	namespace string
	// anonymous is how to reach the API server without saying who one is.
	anonymous *rest.Config
}

func connect(kubeconfig, namespace string) (*Kube, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	config.GroupVersion = &corev1.SchemeGroupVersion
	config.APIPath = "/api"
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.QPS = -1
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, err
	}
	return &Kube{rest: client, params: runtime.NewParameterCodec(scheme), namespace: namespace, anonymous: rest.AnonymousClientConfig(config)}, nil
}

// API is the administrator's client of the core group, for what only one test
// needs.
func (k *Kube) API() rest.Interface { return k.rest }

// Pods lists podlane's pods: those of the job with that page, or all if jobURL
// is empty.
func (k *Kube) Pods(ctx context.Context, jobURL string) ([]corev1.Pod, error) {
	var list corev1.PodList
	err := k.list(ctx, "pods", &list)
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return isAnothers(p.Annotations, jobURL) }), err
}

// Secrets lists podlane's secrets in the same way.
func (k *Kube) Secrets(ctx context.Context, jobURL string) ([]corev1.Secret, error) {
	var list corev1.SecretList
	err := k.list(ctx, "secrets", &list)
	return slices.DeleteFunc(list.Items, func(s corev1.Secret) bool { return isAnothers(s.Annotations, jobURL) }), err
}

func isAnothers(annotations map[string]string, jobURL string) bool {
	return jobURL != "" && annotations["podlane/job-url"] != jobURL
}

func (k *Kube) list(ctx context.Context, resource string, into runtime.Object) error {
	return k.rest.Get().Namespace(k.namespace).Resource(resource).
		VersionedParams(&metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=podlane"}, k.params).Do(ctx).Into(into)
}

// DeletePod deletes a pod at once, as an eviction or a person would.
func (k *Kube) DeletePod(ctx context.Context, name string) error {
	grace := int64(0)
	return k.rest.Delete().Namespace(k.namespace).Resource("pods").Name(name).Body(&metav1.DeleteOptions{GracePeriodSeconds: &grace}).Do(ctx).Error()
}

// CreateQuota limits the namespace to a number of pods; the function that is
// returned takes it away.
func (k *Kube) CreateQuota(ctx context.Context, quota *corev1.ResourceQuota) (remove func(context.Context) error, err error) {
	err = k.rest.Post().Namespace(k.namespace).Resource("resourcequotas").Body(quota).Do(ctx).Error()
	return func(ctx context.Context) error {
		return k.rest.Delete().Namespace(k.namespace).Resource("resourcequotas").Name(quota.Name).Do(ctx).Error()
	}, err
}

// CreateSecret creates a secret, as a prepare that died would have left it.
func (k *Kube) CreateSecret(ctx context.Context, secret *corev1.Secret) error {
	return k.rest.Post().Namespace(k.namespace).Resource("secrets").Body(secret).Do(ctx).Error()
}

// Evict asks for a pod's eviction, as a drain of its node does.
func (k *Kube) Evict(ctx context.Context, name string) error {
	eviction := fmt.Appendf(nil, `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":%q,"namespace":%q}}`, name, k.namespace)
	return k.rest.Post().Namespace(k.namespace).Resource("pods").Name(name).SubResource("eviction").
		SetHeader("Content-Type", "application/json").Body(eviction).Do(ctx).Error()
}

// May asks the API server whether a user may do that to resources of the core
// group, in all namespaces. Rights count a moment after they are given.
func (k *Kube) May(ctx context.Context, user, verb, resource string) (bool, error) {
	return k.MayIn(ctx, "", user, verb, resource)
}

// MayIn is May for one namespace.
func (k *Kube) MayIn(ctx context.Context, namespace, user, verb, resource string) (bool, error) {
	review := fmt.Appendf(nil, `{"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview","spec":{"user":%q,"resourceAttributes":{"namespace":%q,"verb":%q,"resource":%q}}}`,
		user, namespace, verb, resource)
	text, err := k.rest.Post().AbsPath("/apis/authorization.k8s.io/v1/subjectaccessreviews").
		SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json").Body(review).Do(ctx).Raw()
	if err != nil {
		return false, err
	}
	var answer struct{ Status struct{ Allowed bool } }
	err = json.Unmarshal(text, &answer)
	return answer.Status.Allowed, err
}

// AccountToken returns a token of a service account in the namespace of the
// jobs, good for an hour.
func (k *Kube) AccountToken(ctx context.Context, name string) (string, error) {
	var answer struct {
		Status struct{ Token string }
	}
	text, err := k.rest.Post().Namespace(k.namespace).Resource("serviceaccounts").Name(name).SubResource("token").
		SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json").
		Body([]byte(`{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest"}`)).DoRaw(ctx)
	if err == nil {
		err = json.Unmarshal(text, &answer)
	}
	return answer.Status.Token, err
}

// MayList tells whether whoever has a token may list the pods of the jobs.
func (k *Kube) MayList(ctx context.Context, token string) bool {
	config := rest.CopyConfig(k.anonymous)
	config.BearerToken = token
	client, err := rest.RESTClientFor(config)
	return err == nil && client.Get().Namespace(k.namespace).Resource("pods").Param("limit", "1").Do(ctx).Error() == nil
}
