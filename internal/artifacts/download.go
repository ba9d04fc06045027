package artifacts

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// downloadTimeout bounds one attempt, as the runner's own client does
// (common/consts.go DefaultNetworkClientTimeout).
const downloadTimeout = time.Hour

// answerTimeout bounds the wait for the first byte of an answer.
const answerTimeout = 10 * time.Minute

// download is the command artifacts-downloader.
func (c Config) download(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags, err := parseDownloadFlags(c, args, stdout)
	if err != nil {
		return err
	}
	log := newLines(stderr, flags.token)
	root, err := c.openDir()
	if err != nil {
		return err
	}
	defer root.Close()
	client, err := newClient(flags.credentials, downloadTimeout, answerTimeout, log)
	if err != nil {
		return err
	}
	defer client.close()
	file, err := stagingFile(flags.stagingDir)
	if err != nil {
		return err
	}
	defer file.Close()

	const title = "Downloading artifacts from coordinator..."
	err = retry(ctx, flags.retries+1, flags.retryTime, log, func(attempt int) error {
		// If the object storage cannot be reached from here, GitLab passes the
		// archive on in the second attempt.
		direct := flags.direct && attempt == 1
		host, err := client.fetch(ctx, direct, file)
		if err != nil {
			return fmt.Errorf("%s %w", title, err)
		}
		log.info("%s ok  id=%d host=%s", title, flags.id, host)
		return nil
	})
	if err != nil {
		return err
	}
	archive, err := openZip(file)
	if err != nil {
		return err
	}
	return extract(ctx, archive, root, log)
}

// stagingFile returns a file that vanishes when it is closed, or the process
// killed.
func stagingFile(dir string) (*os.File, error) {
	file, err := os.CreateTemp(dir, "artifacts-")
	if err != nil {
		return nil, fmt.Errorf("create a file for the download: %w", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		file.Close()
		return nil, fmt.Errorf("unlink the file for the download: %w", err)
	}
	return file, nil
}

// fetch makes one attempt to download the archive into file, whose content it
// replaces, and returns the host that it came from.
func (c *client) fetch(ctx context.Context, direct bool, file *os.File) (string, error) {
	to := *c.endpoint
	if direct {
		to.RawQuery = "direct_download=true"
	}
	for range maxRedirects {
		req, err := c.request(ctx, http.MethodGet, &to, http.NoBody)
		if err != nil {
			return "", err
		}
		resp, err := c.do(req)
		if err != nil {
			return "", transient{err}
		}
		if resp.StatusCode/100 != 3 {
			return to.Host, c.receive(resp, direct, file)
		}
		discard(resp)
		next, err := c.redirect(resp)
		if err != nil {
			return "", err
		}
		to = *next
	}
	return "", fmt.Errorf("%s redirects more than %d times", to.Host, maxRedirects)
}

// receive judges the answer to a download and stores its body.
func (c *client) receive(resp *http.Response, direct bool, file *os.File) error {
	defer discard(resp)
	if resp.StatusCode != http.StatusOK {
		err := refused(resp)
		if direct && resp.Request.URL.Host != c.endpoint.Host {
			return transient{err} // the storage's no is not GitLab's
		}
		return err
	}
	if err := file.Truncate(0); err != nil {
		return fmt.Errorf("empty the file for the download: %w", err)
	}
	return store(resp.Body, io.NewOffsetWriter(file, 0), resp.Request.URL.Host)
}

// store copies a body to a file and tells whose fault a failure is: only the
// network's is worth another attempt.
func store(body io.Reader, file io.Writer, host string) error {
	tracked := &errorTracker{Reader: body}
	_, err := io.Copy(file, tracked)
	switch {
	case err == nil:
		return nil
	case tracked.err != nil:
		return transient{fmt.Errorf("%s: the download broke off: %w", host, tracked.err)}
	default:
		return fmt.Errorf("store the download: %w", err)
	}
}

// errorTracker remembers the error that its reader ended with.
type errorTracker struct {
	io.Reader
	err error
}

func (t *errorTracker) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		t.err = err
	}
	return n, err
}

// refused says in one line what an answer other than 200 means.
func refused(resp *http.Response) error {
	said := message(resp)
	switch code := resp.StatusCode; {
	case code == http.StatusNotFound:
		return fmt.Errorf("%s: not found: the artifacts have expired or were deleted, or the job made none", said)
	case code == http.StatusForbidden:
		return fmt.Errorf("%s: forbidden: this job may not read that job's artifacts", said)
	case code == http.StatusUnauthorized:
		return fmt.Errorf("%s: unauthorized: the token of the dependency is not valid", said)
	case code >= http.StatusInternalServerError:
		return transient{errors.New(said)}
	default:
		return fmt.Errorf("%s, expected 200 OK", said)
	}
}

// openZip opens a downloaded archive.
func openZip(file *os.File) (*zip.Reader, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("open the downloaded archive: %w", err)
	}
	archive, err := zip.NewReader(file, info.Size())
	if err != nil {
		return nil, fmt.Errorf("the downloaded archive (%d bytes) is %s: %w", info.Size(), guess(file), err)
	}
	return archive, nil
}

// guess says what a file that is not a whole zip archive looks like.
func guess(file io.ReaderAt) string {
	head := make([]byte, 4)
	n, _ := file.ReadAt(head, 0)
	switch head = head[:n]; {
	case n == 0:
		return "empty"
	case bytes.HasPrefix(head, []byte("PK")):
		return "a damaged zip"
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return "gzip, which cannot be extracted; expected zip"
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return "zstd, which cannot be extracted; expected zip"
	default:
		return "not a zip"
	}
}
