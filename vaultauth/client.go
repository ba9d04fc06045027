package vaultauth

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/hashicorp/vault/api"

	"podlane/internal/redact"
)

// Config says where Vault is and how to reach it. Nothing else does: no
// variable of the environment has a say.
type Config struct {
	// Address is Vault's URL, such as https://vault.example.com:8200.
	Address string
	// Namespace is for Vault Enterprise and OpenBao; empty means the root one.
	Namespace string
	// CAFile holds PEM certificates that Vault's is checked against; empty means
	// the system's.
	CAFile string
	// CertFile and KeyFile are a client certificate in PEM; both or neither.
	CertFile, KeyFile string
	// ServerName is expected in Vault's certificate; empty means the address's
	// host.
	ServerName string
	// AuthMount is where the JWT auth method is mounted; empty means jwt.
	AuthMount string
	// Timeout bounds one try of one request; zero means 10 s.
	Timeout time.Duration
	// RetryBudget is how long a request is tried again while Vault can't be
	// reached, is sealed or busy; zero means not at all.
	RetryBudget time.Duration
	UserAgent   string
	// Redact gets every secret that Vault hands out, before anyone else does; nil
	// is fine.
	Redact *redact.Set
}

// Client talks to one Vault. It is safe for concurrent use and holds no token.
type Client struct {
	config Config
	http   *http.Client
	sdk    *api.Client
	redact *redact.Set
	notify func(format string, args ...any)
}

// New reads the certificates that config names and sends nothing. Notify gets a
// line when Vault has to be waited for; it may be nil.
func New(config Config, notify func(format string, args ...any)) (*Client, error) {
	if u, err := url.Parse(config.Address); err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, misconfigured("set up access to vault", "the address is %q, expected a URL such as https://vault.example.com:8200", config.Address)
	}
	if config.AuthMount == "" {
		config.AuthMount = "jwt"
	}
	if config.Timeout <= 0 {
		config.Timeout = 10 * time.Second
	}
	if config.Redact == nil {
		config.Redact = new(redact.Set)
	}
	if notify == nil {
		notify = func(string, ...any) {}
	}
	transport, err := newTransport(config)
	if err != nil {
		return nil, err
	}
	c := &Client{
		config: config,
		http: &http.Client{
			Transport: transport,
			// The SDK looks at redirects itself, and is told not to follow them.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		redact: config.Redact,
		notify: notify,
	}
	if c.sdk, err = c.newSDK(); err != nil {
		return nil, err
	}
	return c, nil
}

// Address returns Vault's URL.
func (c *Client) Address() string { return c.config.Address }

// newSDK makes the SDK's client, without a token. The SDK reads VAULT_ variables
// as it does so; all that they can set is set over here. One that can't be read
// at all (VAULT_MAX_RETRIES=many) is an error: NewClient knows no way around it,
// so cmd takes them out of the environment.
func (c *Client) newSDK() (*api.Client, error) {
	sdk, err := api.NewClient(&api.Config{
		Address:          c.config.Address,
		HttpClient:       c.http,
		DisableRedirects: true,
		MaxRetries:       0,
		// Retries are ours: only we know which requests may be sent twice.
		CheckRetry: func(_ context.Context, _ *http.Response, err error) (bool, error) { return false, err },
		// Zero, because the SDK's own timeout ends before a body can be read.
		Timeout: 0,
		// On Enterprise, a standby waits until it has seen what we wrote before.
		ReadYourWrites: true,
	})
	if err != nil {
		return nil, &Error{
			Kind: Misconfigured, Op: "set up access to vault", Detail: err.Error(), Err: err,
			Hint: "unset the VAULT_ variables of the process",
		}
	}
	headers := http.Header{api.RequestHeaderName: {"true"}}
	if c.config.UserAgent != "" {
		headers.Set("User-Agent", c.config.UserAgent)
	}
	sdk.SetHeaders(headers)
	sdk.ClearToken()
	sdk.SetWrappingLookupFunc(func(string, string) string { return "" })
	sdk.ClearNamespace()
	if c.config.Namespace != "" {
		sdk.SetNamespace(c.config.Namespace)
	}
	return sdk, nil
}

// as returns the SDK's client with a token. All share what they know about how
// far Vault's standbys must have caught up.
func (c *Client) as(token redact.Secret) *api.Client {
	return c.sdk.WithRequestCallbacks(func(r *api.Request) { r.ClientToken = token.Reveal() })
}
