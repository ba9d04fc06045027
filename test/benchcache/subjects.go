package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"

	"podlane/cacheclient/archive"
	"podlane/cacheclient/store"
	"podlane/cacheclient/transfer"
)

// subjects are the programs of this program: each measurement is a process.
var subjects = map[string]func(context.Context, []string) error{
	"tar-save": tarSave, "tar-restore": tarRestore, "floor": floor, "floor+decode": floorDecode, "proxy": serveProxy, "lookup": lookup,
}

// tarSave is what many write by hand: tar | zstd, streamed into parts.
func tarSave(ctx context.Context, args []string) error {
	dir, object := args[0], args[2]
	b, err := decodeBucket(args[1])
	if err != nil {
		return err
	}
	s, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	upload, err := s.CreateUpload(ctx, object, store.Meta{})
	if err != nil {
		return err
	}
	client := transfer.New(transfer.Config{})
	defer client.Close()
	up := client.Uploader(partSigner{s, upload})
	cmd := exec.CommandContext(ctx, "sh", "-c", `tar -C "$0" -cf - . | zstd -3 -T0 -q`, dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	buffer := make([]byte, 16<<20)
	for number := 1; ; number++ {
		n, err := io.ReadFull(out, buffer)
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return err
		}
		if n > 0 {
			if err := up.Part(ctx, archive.Part{Number: number, Last: last, Data: buffer[:n]}); err != nil {
				return err
			}
		}
		if last {
			break
		}
	}
	if err := cmd.Wait(); err != nil {
		return err
	}
	_, err = s.Complete(ctx, upload, up.Done(), store.Replace)
	return err
}

// partSigner signs in this process what podlane signs on the runner's host.
type partSigner struct {
	store  *store.Store
	upload store.Upload
}

func (p partSigner) Read(context.Context, bool) (transfer.Request, error) {
	return transfer.Request{}, errors.ErrUnsupported
}

func (p partSigner) Part(ctx context.Context, number int, size int64, _ bool) (transfer.Request, error) {
	s, err := p.store.SignPart(ctx, p.upload, number, size, signedFor)
	return s.Request, err
}

func tarRestore(ctx context.Context, args []string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, args[1], nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", `zstd -dcq | tar -C "$0" -xf -`, args[0])
	cmd.Stdin, cmd.Stderr = resp.Body, os.Stderr
	return cmd.Run()
}

// lookup is all that a save costs when the key exists.
func lookup(ctx context.Context, args []string) error {
	b, err := decodeBucket(args[0])
	if err != nil {
		return err
	}
	s, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = s.Head(ctx, args[1])
	return err
}

// own is what a subject says about itself where the process's figures hold more
// than what is measured.
type own struct {
	Wall, CPU float64
}

func (o own) print() error {
	text, err := json.Marshal(o)
	if err == nil {
		_, err = fmt.Println(string(text)) //nolint:forbidigo // a subject's answer
	}
	return err
}
