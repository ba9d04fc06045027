// Package vaultauth trades a job's id_token for credentials that live minutes:
// a Vault token by the JWT auth method, and with it service account tokens from
// Vault's Kubernetes engine, S3 credentials from its AWS engine and secrets
// from its KV engine. It works with HashiCorp Vault and OpenBao, and knows
// neither Kubernetes nor S3 nor GitLab.
//
// A [Client] sends requests: one address, its TLS, retries. A [Session] is the
// Vault token of one JWT role, however it was come by. A [Store] carries tokens
// from one short process of a job to the next in a sealed file.
//
// Facts about the protocol are from Vault's API documentation
// (https://developer.hashicorp.com/vault/api-docs) and its source.
package vaultauth
