package main

import (
	jwt "github.com/hashicorp/vault-plugin-auth-jwt"
	kubernetes "github.com/hashicorp/vault-plugin-secrets-kubernetes"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/logical/aws"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// factories are all plugins there are.
var factories = map[consts.PluginType]map[string]logical.Factory{
	consts.PluginTypeCredential: {"jwt": jwt.Factory},
	consts.PluginTypeSecrets:    {"aws": aws.Factory, "kubernetes": kubernetes.Factory, "kv": kv.Factory},
}

// plugins takes the place of helper/builtinplugins.Registry, which links every
// plugin and with it the SDKs of all clouds and databases.
type plugins struct{}

func (plugins) Contains(name string, kind consts.PluginType) bool {
	_, ok := factories[kind][name]
	return ok
}

func (plugins) Get(name string, kind consts.PluginType) (func() (any, error), bool) {
	factory, ok := factories[kind][name]
	return func() (any, error) { return factory, nil }, ok
}

func (plugins) Keys(kind consts.PluginType) []string {
	var names []string
	for name := range factories[kind] {
		names = append(names, name)
	}
	return names
}

func (plugins) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, plugins{}.Contains(name, kind)
}

func (plugins) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
