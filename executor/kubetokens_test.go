package executor

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"podlane/internal/redact"
	"podlane/vaultauth"
)

// kubeSource hands out numbered tokens that live ten minutes.
type kubeSource struct {
	given int
	err   error
}

func (s *kubeSource) fetch(context.Context, bool) (vaultauth.KubeToken, error) {
	if s.err != nil {
		return vaultauth.KubeToken{}, s.err
	}
	s.given++
	now := time.Now()
	return vaultauth.KubeToken{
		Token: redact.New("token number " + string(rune('0'+s.given))), Issued: now, Refresh: now.Add(7 * time.Minute), Expires: now.Add(10 * time.Minute),
	}, nil
}

// In the bubble of a synctest time passes only when everybody waits.
func TestKubeTokensAreRenewedWhileAStageRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &kubeSource{}
		warnings := 0
		tokens := newKubeTokens(source.fetch, func(string, ...any) { warnings++ })
		ctx, cancel := context.WithCancel(t.Context())
		first, err := tokens.Token(ctx)
		if err != nil {
			t.Fatal(err)
		}
		go tokens.keepFresh(ctx)
		time.Sleep(6 * time.Minute)
		if again, err := tokens.Token(ctx); err != nil || !again.Equal(first) || source.given != 1 {
			t.Errorf("after 6 minutes %d tokens have been fetched, %v", source.given, err)
		}
		time.Sleep(2 * time.Minute)
		if source.given != 2 {
			t.Errorf("after 8 minutes %d tokens have been fetched, want 2", source.given)
		}
		// Vault is away from now on: the present token does for its 10 minutes.
		source.err = errors.New("vault is sealed")
		time.Sleep(8 * time.Minute)
		if _, err := tokens.Token(ctx); err != nil || warnings != 1 {
			t.Errorf("%v and %d warnings, want a token and one warning", err, warnings)
		}
		time.Sleep(2 * time.Minute)
		if _, err := tokens.Token(ctx); err == nil || err.Error() != "get a token for kubernetes: vault is sealed" {
			t.Errorf("got %v of a token that has ended", err)
		}
		source.err = nil
		if _, err := tokens.Token(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		synctest.Wait()
	})
}

func TestKubeTokensReplaceWhatWasRefused(t *testing.T) {
	source := &kubeSource{}
	tokens := newKubeTokens(source.fetch, t.Logf)
	first, err := tokens.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second, err := tokens.Replace(t.Context(), first)
	if err != nil || second.Equal(first) {
		t.Errorf("got the refused token again, %v", err)
	}
	// Another request was refused at the same time.
	if third, err := tokens.Replace(t.Context(), first); err != nil || !third.Equal(second) || source.given != 2 {
		t.Errorf("%d tokens were fetched, %v; want 2", source.given, err)
	}
}
