// Command registry is a container registry for pull tests: anyone may pull
// names under public/, only one user those under private/ and push.
package main

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stderr))
}

func run(args []string, stderr io.Writer) int {
	if len(args) != 3 {
		fmt.Fprintln(stderr, "usage: registry <address> <user> <password file>")
		return 2
	}
	password, err := os.ReadFile(args[2])
	if err != nil {
		fmt.Fprintf(stderr, "registry: read password: %v\n", err)
		return 1
	}
	logger := log.New(stderr, "", log.LstdFlags)
	server := &http.Server{
		Addr:              args[0],
		Handler:           guard(registry.New(registry.Logger(logger)), args[1], string(password)),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          logger,
	}
	logger.Print(server.ListenAndServe())
	return 1
}

// guard asks for the password where it is needed.
func guard(next http.Handler, user, password string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !open(r) && !allowed(r, user, password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="podlane test registry"`)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintln(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func open(r *http.Request) bool {
	reading := r.Method == http.MethodGet || r.Method == http.MethodHead
	return reading && !strings.HasPrefix(r.URL.Path, "/v2/private/")
}

func allowed(r *http.Request, user, password string) bool {
	u, p, ok := r.BasicAuth()
	return ok && u == user && subtle.ConstantTimeCompare([]byte(p), []byte(password)) == 1
}
