package artifacts

import (
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
)

// upload is the command artifacts-uploader.
func (c Config) upload(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags, err := parseUploadFlags(c, args, stdout)
	if err != nil {
		return err
	}
	log := newLines(stderr, flags.token)
	flags.expandVariables(c.getenv)
	level, ok := compressionLevel(flags.compressionLevel)
	if !ok {
		log.warn("compression level %q is not known: expected fastest, fast, default, slow or slowest; using default", flags.compressionLevel)
	}
	pack, ending, err := newPacker(flags.format, level)
	if err != nil {
		return err
	}
	root, err := c.openDir()
	if err != nil {
		return err
	}
	defer root.Close()

	names, err := find(ctx, root, flags.selection, log)
	if err != nil {
		return err
	}
	if flags.provenance.wanted {
		log.info("Generating artifacts statement")
		names, err = flags.provenance.add(root, flags.name, flags.id, names, c.getenv(envRunnerVersion))
		if err != nil {
			return fmt.Errorf("write the artifacts metadata: %w", err)
		}
	}
	if flags.format == "gzip" || flags.format == "raw" {
		names = regularOnly(root, names, log)
	}
	if len(names) == 0 {
		log.fail("No files to upload") // and the job goes on, as with the runner
		return nil
	}

	client, err := newClient(flags.credentials, flags.timeout, flags.headerTimeout, log)
	if err != nil {
		return err
	}
	defer client.close()
	up := &upload{
		client:   client,
		query:    flags.query(),
		fileName: archiveName(flags.name, ending),
		pack:     func(ctx context.Context, w io.Writer) error { return pack(ctx, w, root, names, log) },
	}
	title := "Uploading artifacts to coordinator..."
	if flags.kind != "" {
		title = fmt.Sprintf("Uploading artifacts as %q to coordinator...", flags.kind)
	}
	var done string
	err = retry(ctx, attempts, c.retryDelay, log, func(int) error {
		var err error
		done, err = up.send(ctx)
		if err != nil {
			return fmt.Errorf("%s %w", title, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	log.info("%s %s id=%d", title, done, flags.id)
	return nil
}

func (f *uploadFlags) expandVariables(getenv func(string) string) {
	f.name = expand(f.name, getenv)
	for i := range f.paths {
		f.paths[i] = expand(f.paths[i], getenv)
	}
	for i := range f.exclude {
		f.exclude[i] = expand(f.exclude[i], getenv)
	}
}

func (f *uploadFlags) query() url.Values {
	query := url.Values{}
	for name, value := range map[string]string{
		"expire_in":       f.expireIn,
		"artifact_format": f.format,
		"artifact_type":   f.kind,
	} {
		if value != "" {
			query.Set(name, value)
		}
	}
	return query
}

// compressionLevel maps the runner's words to deflate's levels. An unknown word
// means the default level and false.
func compressionLevel(word string) (int, bool) {
	switch word {
	case "fastest":
		return flate.BestSpeed, true
	case "fast":
		return 3, true
	case "", "default":
		return flate.DefaultCompression, true
	case "slow":
		return 7, true
	case "slowest":
		return flate.BestCompression, true
	}
	return flate.DefaultCompression, false
}

// regularOnly leaves out what formats without directories and links cannot hold.
func regularOnly(root *os.Root, names []string, log lines) []string {
	var regular []string
	for _, name := range names {
		info, err := root.Lstat(name)
		switch {
		case err != nil:
			log.warn("File ignored: %v", err)
		case info.Mode().IsRegular():
			regular = append(regular, name)
		case !info.IsDir():
			log.warn("File ignored: %s: %v", name, errNotRegular)
		}
	}
	return regular
}

// upload sends one archive. The archive is made while it is sent, once for each
// attempt, and is never stored.
type upload struct {
	client   *client
	query    url.Values
	fileName string
	pack     func(context.Context, io.Writer) error
}

// send makes one attempt and returns what the server said. It follows a 307 or
// 308 to another address, as the runner does (network/gitlab.go
// handleUploadRedirectionState).
func (u *upload) send(ctx context.Context) (string, error) {
	to := *u.client.endpoint
	to.RawQuery = u.query.Encode()
	for range maxRedirects {
		resp, err := u.post(ctx, &to) //nolint:bodyclose // it has no body left to close
		if err != nil {
			return "", err
		}
		switch resp.StatusCode {
		case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
			next, err := u.client.redirect(resp)
			if err != nil {
				return "", err
			}
			if next.RawQuery == "" {
				next.RawQuery = u.query.Encode()
			}
			to = *next
		default:
			return uploaded(resp)
		}
	}
	return "", fmt.Errorf("%s redirects more than %d times", to.Host, maxRedirects)
}

// uploaded judges the answer to an upload.
func uploaded(resp *http.Response) (string, error) {
	said := message(resp)
	switch code := resp.StatusCode; {
	case code == http.StatusCreated:
		return said + " " + requestID(resp), nil
	case code == http.StatusRequestEntityTooLarge:
		return "", fmt.Errorf("%s: too large: send less, or raise the maximum artifacts size in the settings of the project, group or instance", said)
	case code == http.StatusForbidden || code == http.StatusUnauthorized:
		return "", fmt.Errorf("%s: refused: the job is over or was cancelled, or its token is not valid", said)
	case code/100 == 3:
		return "", fmt.Errorf("%s: uploads are redirected in a way that loses their content: is the runner's url GitLab's final address (https, not http)?", said)
	case code >= http.StatusInternalServerError:
		return "", transient{errors.New(said)}
	default:
		return "", fmt.Errorf("%s, expected 201 Created", said)
	}
}

// post streams the archive as a multipart form. The body of the response it
// returns is closed but for what [message] reads, which is in memory.
func (u *upload) post(ctx context.Context, to *url.URL) (*http.Response, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reader, writer := io.Pipe()
	form := multipart.NewWriter(writer)
	packed := make(chan error, 1)
	go func() {
		err := u.writeForm(ctx, form)
		// An error must reach the server as a broken request; the form's end
		// would make half an archive look whole.
		_ = writer.CloseWithError(err)
		packed <- err
	}()
	resp, err := u.exchange(ctx, to, reader, form.FormDataContentType())
	_ = reader.CloseWithError(errNotWanted)
	if packErr := <-packed; packErr != nil && !isClosed(packErr) && ctx.Err() == nil {
		return nil, fmt.Errorf("read artifacts: %w", packErr)
	}
	if err != nil {
		return nil, transient{err}
	}
	return resp, nil
}

// errNotWanted ends the packing of an archive that nobody reads any more.
var errNotWanted = errors.New("the exchange is over")

// isClosed reports whether packing ended because the request's body was closed:
// by us, or by the transport.
func isClosed(err error) bool {
	return errors.Is(err, errNotWanted) || errors.Is(err, io.ErrClosedPipe)
}

func (u *upload) writeForm(ctx context.Context, form *multipart.Writer) error {
	part, err := form.CreateFormFile("file", u.fileName)
	if err != nil {
		return err
	}
	if err := u.pack(ctx, part); err != nil {
		return err
	}
	return form.Close()
}

func (u *upload) exchange(ctx context.Context, to *url.URL, body io.ReadCloser, contentType string) (*http.Response, error) {
	req, err := u.client.request(ctx, http.MethodPost, to, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	// A refusal then comes before gigabytes are sent, and is not lost in the
	// broken pipe that sending them would end in.
	req.Header.Set("Expect", "100-continue")
	resp, err := u.client.do(req)
	if err != nil {
		return nil, err
	}
	return buffered(resp)
}
