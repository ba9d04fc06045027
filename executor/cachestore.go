package executor

import (
	"context"

	"podlane/cacheclient/store"
	"podlane/executor/settings"
	"podlane/internal/redact"
	"podlane/internal/version"
	"podlane/vaultauth"
)

// openBucket prepares access to the caches' bucket.
func (s *Stage) openBucket(ctx context.Context, source store.Source) (*store.Store, error) {
	at := s.Settings.Cache
	return store.Open(ctx, store.Config{
		Endpoint: at.Endpoint, Region: at.Region, Bucket: at.Bucket, PathStyle: at.PathStyle,
		CAFile: at.CAFile, UserAgent: "podlane/" + version.String(), Proxy: s.Proxy, Attempts: s.attempts,
	}, source)
}

// cacheFacts are the facts that a cache's place is made of: those that GitLab
// has signed if Vault judges the signature before it gives access to the
// bucket, else those of the job response.
func (s *Stage) cacheFacts(role settings.VaultRole) (Facts, error) {
	if s.vaultForCaches(role) {
		return s.Facts()
	}
	return responseFacts(s.Job), nil
}

func (s *Stage) vaultForCaches(role settings.VaultRole) bool {
	return s.Settings.Vault.Enabled() && role.Role != ""
}

// cacheSource says where credentials for the bucket come from: Vault, or the
// AWS SDK's own ways. They are asked for when the first request is made, and
// again before they end.
func (s *Stage) cacheSource(role settings.VaultRole) store.Source {
	if !s.vaultForCaches(role) {
		return store.DefaultChain
	}
	return func(ctx context.Context) (store.Credentials, error) {
		defer s.seen.Phase(phaseLogin)()
		c, err := s.CacheCredential(ctx, role)
		if err != nil {
			return store.Credentials{}, err
		}
		return storeCredentials(c), nil
	}
}

func storeCredentials(c vaultauth.S3Credential) store.Credentials {
	return store.Credentials{AccessKey: c.AccessKey, SecretKey: c.SecretKey, SessionToken: c.SessionToken, Expires: c.Expires}
}

// PersonsSource is where credentials for the bucket come from for a person: with
// a Vault token of theirs from Vault, without one by the AWS SDK's own ways.
func PersonsSource(s *settings.Settings, token redact.Secret, secrets *redact.Set, warnf func(string, ...any)) (store.Source, error) {
	role := s.Vault.CacheAdmin
	if token.IsZero() || !s.Vault.Enabled() || role.Role == "" {
		return store.DefaultChain, nil
	}
	client, err := vaultClient(&s.Vault, secrets, warnf)
	if err != nil {
		return nil, err
	}
	session := client.OwnToken(token)
	return func(ctx context.Context) (store.Credentials, error) {
		c, err := session.S3(ctx, role.Mount, role.Role, role.TTL.D())
		return storeCredentials(c), err
	}, nil
}
