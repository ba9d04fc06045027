package board

import (
	"encoding/json"
	"net/http"
	"time"
)

// maxBody bounds a request, in bytes.
const maxBody = 1 << 16

// Handler serves GET and POST of /api/deployments. now dates what is posted.
func (b *Board) Handler(now func() time.Time) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/deployments", b.list)
	mux.HandleFunc("POST /api/deployments", func(w http.ResponseWriter, r *http.Request) {
		b.record(w, r, now())
	})
	return mux
}

func (b *Board) list(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(b.Deployments())
}

func (b *Board) record(w http.ResponseWriter, r *http.Request, at time.Time) {
	var d Deployment
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&d); err != nil {
		http.Error(w, "not a deployment in JSON: "+err.Error(), http.StatusBadRequest)
		return
	}
	if err := b.Record(d.Service, d.Version, at); err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
