// Command sts stands before MinIO and answers the one request of AWS's STS that
// MinIO doesn't know and Vault begins with: GetCallerIdentity. Everything else
// goes through as it came.
package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stderr))
}

func run(args []string, stderr io.Writer) int {
	if len(args) != 2 {
		fmt.Fprintln(stderr, "usage: sts <address> <MinIO's URL>")
		return 2
	}
	target, err := url.Parse(args[1])
	if err != nil {
		fmt.Fprintln(stderr, "sts:", err)
		return 2
	}
	logger := log.New(stderr, "", log.LstdFlags)
	server := &http.Server{Addr: args[0], Handler: handler(target), ReadHeaderTimeout: 10 * time.Second, ErrorLog: logger}
	logger.Print(server.ListenAndServe())
	return 1
}

// handler keeps the Host header, which is part of what the caller has signed.
func handler(target *url.URL) http.Handler {
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host
	}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asksWhoItIs(r) {
			w.Header().Set("Content-Type", "text/xml")
			_, _ = io.WriteString(w, callerIdentity)
			return
		}
		proxy.ServeHTTP(w, r)
	})
}

// maxForm is far beyond a request to STS. What is longer is none.
const maxForm = 64 << 10

func asksWhoItIs(r *http.Request) bool {
	if r.Method != http.MethodPost || r.URL.Path != "/" {
		return false
	}
	form, err := io.ReadAll(io.LimitReader(r.Body, maxForm))
	r.Body = readCloser{io.MultiReader(bytes.NewReader(form), r.Body), r.Body}
	if err != nil {
		return false
	}
	values, err := url.ParseQuery(string(form))
	return err == nil && values.Get("Action") == "GetCallerIdentity"
}

type readCloser struct {
	io.Reader
	io.Closer
}

// callerIdentity is the example in AWS's API reference, for an account that
// nobody has.
const callerIdentity = `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <GetCallerIdentityResult>
    <Arn>arn:aws:iam::000000000000:user/vault</Arn>
    <UserId>vault</UserId>
    <Account>000000000000</Account>
  </GetCallerIdentityResult>
  <ResponseMetadata><RequestId>00000000-0000-0000-0000-000000000000</RequestId></ResponseMetadata>
</GetCallerIdentityResponse>
`
