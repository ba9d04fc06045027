package podagent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// findShell returns bash if there is one, else sh, else a CodeNoShell error.
// It looks along PATH, then in the places where small images have it.
func findShell(path string, more []string) (string, error) {
	dirs := slices.Concat(filepath.SplitList(path), more)
	for _, name := range []string{"bash", "sh"} {
		for _, dir := range dirs {
			file := filepath.Join(dir, name)
			info, err := os.Stat(file)
			if filepath.IsAbs(file) && err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return file, nil
			}
		}
	}
	return "", &StageError{Code: CodeNoShell, Reason: fmt.Sprintf("the image has neither bash nor sh: looked in %s", strings.Join(dirs, ", "))}
}
