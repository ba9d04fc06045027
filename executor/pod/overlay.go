package pod

import (
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// overlay puts layers on top of each other, the last on top, as Kubernetes'
// strategic merge does: what a layer sets wins, tables and lists of named things
// are merged, other lists are replaced. The types' own patchStrategy tags say
// which lists are which. Directives such as "$patch" don't exist here.
//
// The library for that, apimachinery's strategicpatch, works on JSON and brings
// protobuf's and OpenAPI's runtimes along, which every stage would have to start.
func overlay(layers ...*corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	out := &corev1.PodTemplateSpec{}
	for _, layer := range layers {
		if layer != nil {
			// A copy: layers share nothing with the result.
			mergeValue(reflect.ValueOf(out).Elem(), reflect.ValueOf(layer.DeepCopy()).Elem(), "", "")
		}
	}
	return out
}

// mergeValue merges what is set in from over into. strategy and key are the
// tags of the field that holds the two.
func mergeValue(into, from reflect.Value, strategy, key string) {
	switch {
	case from.IsZero():
	case into.IsZero() || isLeaf(from.Type()):
		into.Set(from)
	case from.Kind() == reflect.Struct:
		for i := range from.NumField() {
			tag := from.Type().Field(i).Tag
			mergeValue(into.Field(i), from.Field(i), tag.Get("patchStrategy"), tag.Get("patchMergeKey"))
		}
	case from.Kind() == reflect.Pointer:
		mergeValue(into.Elem(), from.Elem(), "", "")
	case from.Kind() == reflect.Map:
		for _, k := range from.MapKeys() {
			into.SetMapIndex(k, from.MapIndex(k))
		}
	case from.Kind() == reflect.Slice && strings.HasPrefix(strategy, "merge") && key != "":
		mergeList(into, from, strings.Contains(strategy, "retainKeys"), key)
	default:
		into.Set(from)
	}
}

// mergeList merges two lists of structs that have a name, in the order of into.
// With replace, an element takes the place of its namesake: a volume has one
// source.
func mergeList(into, from reflect.Value, replace bool, key string) {
	for i := range from.Len() {
		item := from.Index(i)
		found := false
		for j := range into.Len() {
			there := into.Index(j)
			if !reflect.DeepEqual(jsonField(there, key).Interface(), jsonField(item, key).Interface()) {
				continue
			}
			found = true
			if replace {
				there.Set(item)
			} else {
				mergeValue(there, item, "", "")
			}
			break
		}
		if !found {
			into.Set(reflect.Append(into, item))
		}
	}
}

// jsonField finds a field by its name in JSON.
func jsonField(v reflect.Value, name string) reflect.Value {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if tag, _, _ := strings.Cut(field.Tag.Get("json"), ","); tag == name {
			return v.Field(i)
		}
		if field.Anonymous && field.Type.Kind() == reflect.Struct {
			if inner := jsonField(v.Field(i), name); inner.IsValid() {
				return inner
			}
		}
	}
	return reflect.Value{}
}

var leaves = []reflect.Type{
	reflect.TypeFor[resource.Quantity](), reflect.TypeFor[metav1.Time](), reflect.TypeFor[metav1.MicroTime](), reflect.TypeFor[intstr.IntOrString](),
}

// isLeaf tells structs that are one value.
func isLeaf(t reflect.Type) bool {
	for _, leaf := range leaves {
		if t == leaf {
			return true
		}
	}
	return false
}
