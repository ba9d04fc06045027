package trace

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// Environment is the part of the standard's variables that we know, by name
// (https://opentelemetry.io/docs/specs/otel/protocol/exporter/).
type Environment map[string]string

// IsStandard tells whether a variable belongs into an Environment.
func IsStandard(key string) bool {
	return strings.HasPrefix(key, "OTEL_EXPORTER_OTLP_") || key == "OTEL_SDK_DISABLED" || key == "OTEL_TRACES_EXPORTER" ||
		key == "OTEL_SERVICE_NAME" || key == "OTEL_RESOURCE_ATTRIBUTES"
}

// signal returns the variable of traces, or else the one of all signals.
func (e Environment) signal(name string) string {
	if v := e["OTEL_EXPORTER_OTLP_TRACES_"+name]; v != "" {
		return v
	}
	return e["OTEL_EXPORTER_OTLP_"+name]
}

// ErrProtocol means that the environment asks for a protocol that is not ours.
var ErrProtocol = errors.New("only http/protobuf is supported")

// NewExporter makes an exporter for an endpoint that settings name, else the one
// of the environment. It returns nil if there is none: traces are off.
func NewExporter(endpoint string, timeout time.Duration, env Environment) (*Exporter, error) {
	if env["OTEL_SDK_DISABLED"] == "true" || env["OTEL_TRACES_EXPORTER"] == "none" {
		return nil, nil
	}
	if endpoint == "" {
		endpoint = env.endpoint()
		if endpoint == "" {
			return nil, nil
		}
		if p := env.signal("PROTOCOL"); p != "" && p != "http/protobuf" {
			return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL is %q: %w", p, ErrProtocol)
		}
	}
	e := &Exporter{Endpoint: endpoint, Timeout: timeout, Headers: pairs(env.signal("HEADERS"))}
	e.Resource = []Attribute{{"service.name", "podlane"}}
	for key, value := range pairs(env["OTEL_RESOURCE_ATTRIBUTES"]) {
		if key != "service.name" {
			e.Resource = append(e.Resource, Attribute{key, value})
		} else {
			e.Resource[0].Value = value
		}
	}
	if name := env["OTEL_SERVICE_NAME"]; name != "" {
		e.Resource[0].Value = name
	}
	if ms, err := strconv.Atoi(env.signal("TIMEOUT")); err == nil && ms > 0 {
		e.Timeout = min(timeout, time.Duration(ms)*time.Millisecond)
	}
	if file := env.signal("CERTIFICATE"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read the collector's certificate: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the collector's certificate: %s holds none", file)
		}
		e.Transport = &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	}
	return e, nil
}

// endpoint is that of traces as it stands, or that of all signals with the path
// of traces.
func (e Environment) endpoint() string {
	if v := e["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]; v != "" {
		return v
	}
	if v := e["OTEL_EXPORTER_OTLP_ENDPOINT"]; v != "" {
		return strings.TrimSuffix(v, "/") + "/v1/traces"
	}
	return ""
}

// pairs reads "key=value,key=value" with percent-encoded values.
func pairs(text string) map[string]string {
	out := map[string]string{}
	for _, pair := range strings.Split(text, ",") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		if plain, err := url.PathUnescape(value); err == nil {
			value = plain
		}
		out[strings.TrimSpace(key)] = value
	}
	return out
}
