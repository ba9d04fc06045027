package archive

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// real is a tree that jobs cache.
type real struct {
	program string
	// make makes it with that program in dir, which is empty, and returns its
	// folder there.
	make func(t *testing.T, dir string) string
	// use proves that the restored tree works.
	use func(t *testing.T, dir string)
}

func command(t *testing.T, dir string, environ []string, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), environ...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func must(t *testing.T, out string, err error) string {
	t.Helper()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// goModule is one that this module needs: it is in the proxy that every cache of
// modules is.
const goModule = "github.com/BurntSushi/toml"

func goEnviron(t *testing.T, dir string) []string {
	t.Helper()
	out, err := command(t, ".", nil, "go", "env", "GOMODCACHE")
	return []string{
		"GOMODCACHE=" + filepath.Join(dir, "mod"), "GOPROXY=file://" + filepath.Join(must(t, out, err), "cache", "download"),
		"GOFLAGS=", "GOSUMDB=off", "GOWORK=off",
	}
}

var reals = map[string]real{
	"go modules": {
		program: "go",
		make: func(t *testing.T, dir string) string {
			t.Helper()
			out, err := command(t, ".", nil, "go", "list", "-m", "-f", "{{.Path}}@{{.Version}}", goModule)
			version := must(t, out, err)
			out, err = command(t, dir, goEnviron(t, dir), "go", "mod", "download", version)
			must(t, out, err)
			return "mod"
		},
		use: func(t *testing.T, dir string) {
			t.Helper()
			sums, err := os.ReadFile("../../go.sum")
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o600)
			}
			out, err2 := command(t, ".", nil, "go", "list", "-m", "-f", "{{.Path}} {{.Version}}", goModule)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module m\n\nrequire "+must(t, out, err2)+"\n"), 0o600)
			}
			must(t, "", err)
			if out, err := command(t, dir, goEnviron(t, dir), "go", "mod", "verify"); err != nil || out != "all modules verified" {
				t.Errorf("go mod verify: %v: %s", err, out)
			}
		},
	},
	"node_modules": {
		program: "npm",
		make: func(t *testing.T, dir string) string {
			t.Helper()
			for file, text := range map[string]string{
				"package.json":       `{"name": "app", "version": "1.0.0", "dependencies": {"hello": "file:hello-1.2.3.tgz", "@scope/name": "file:scope-name-4.5.6.tgz"}}`,
				"hello/package.json": `{"name": "hello", "version": "1.2.3", "bin": {"hello": "bin/hello.js"}}`,
				"hello/bin/hello.js": "#!/usr/bin/env node\nconsole.log('hello ' + require('@scope/name'))\n",
				"name/package.json":  `{"name": "@scope/name", "version": "4.5.6", "main": "index.js"}`,
				"name/index.js":      "module.exports = 'world'\n",
			} {
				file = filepath.Join(dir, file)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for _, args := range [][]string{{"pack", "./hello", "./name"}, {"install", "--offline", "--no-audit", "--no-fund"}} {
				out, err := command(t, dir, []string{"npm_config_cache=" + filepath.Join(dir, "npm")}, "npm", args...)
				must(t, out, err)
			}
			return "node_modules"
		},
		use: func(t *testing.T, dir string) {
			t.Helper()
			if out, err := command(t, dir, nil, filepath.Join(dir, "node_modules/.bin/hello")); err != nil || out != "hello world" {
				t.Errorf("hello: %v: %s", err, out)
			}
		},
	},
	"venv": {
		program: "python3",
		make: func(t *testing.T, dir string) string {
			t.Helper()
			// Some systems have what installs pip in a package of its own.
			if _, err := command(t, dir, nil, "python3", "-m", "venv", "venv"); err != nil {
				out, err := command(t, dir, nil, "python3", "-m", "venv", "--clear", "--without-pip", "venv")
				must(t, out, err)
			}
			return "venv"
		},
		use: func(t *testing.T, dir string) {
			t.Helper()
			prefix := filepath.Join(dir, "venv")
			if out, err := command(t, dir, nil, filepath.Join(prefix, "bin/python"), "-c", "import sys; print(sys.prefix)"); err != nil || out != prefix {
				t.Errorf("python: %v: %s", err, out)
			}
		},
	},
}

// What jobs cache comes back as it was, and works.
func TestRealTrees(t *testing.T) {
	for name, tree := range reals {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(tree.program); err != nil {
				t.Skipf("%s is not installed", tree.program)
			}
			from, to := target(t), target(t)
			folder := tree.make(t, from)
			paths := listTree(t, filepath.Join(from, folder))
			for i := range paths {
				paths[i] = filepath.Join(folder, paths[i])
			}
			paths = append(paths, folder)
			var m memory
			summary, err := Write(t.Context(), from, paths, &m, WriteOptions{})
			if err != nil {
				t.Fatal(err)
			}
			b := m.bytes(t)
			if _, err := Restore(t.Context(), to, open(t, b), fetchFrom(b), RestoreOptions{}); err != nil {
				t.Fatal(err)
			}
			same(t, filepath.Join(from, folder), filepath.Join(to, folder))
			t.Logf("%d entries, %d bytes", summary.Entries, summary.Bytes)
			tree.use(t, to)
		})
	}
}
