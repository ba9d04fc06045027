// The server answers which version of each service is deployed, and shows it on
// a page.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"example.com/board/board"
)

// version is set when it is built.
var version = "dev"

func main() {
	addr := flag.String("addr", ":8080", "where to listen")
	deployed := flag.String("deployed", "", "file with what is deployed already, in TOML")
	static := flag.String("static", "", "folder with the page")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *addr, *deployed, *static); err != nil {
		slog.Error("serve", "error", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, addr, deployed, static string) error {
	deployments := board.New()
	if err := deployments.Record("board", version, time.Now()); err != nil {
		return err
	}
	if deployed != "" {
		if err := load(deployments, deployed); err != nil {
			return fmt.Errorf("%s: %w", deployed, err)
		}
	}
	mux := http.NewServeMux()
	mux.Handle("/api/", deployments.Handler(time.Now))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok " + version + "\n"))
	})
	if static != "" {
		mux.Handle("/", http.FileServer(http.Dir(static)))
	}
	server := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(grace)
	}()
	slog.Info("listening", "addr", addr, "version", version)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

func load(b *board.Board, name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	return b.Load(file)
}
