package archive

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"podlane/internal/pick"
)

// clean brings paths into the order of a walk and takes duplicates and the root
// itself out. It refuses paths that lead out of the root.
func clean(paths []string) ([]string, error) {
	sorted := true
	for i, p := range paths {
		if p == "" || p[0] == '/' || strings.HasPrefix(p, "../") || p == ".." || strings.IndexByte(p, 0) >= 0 || len(p) > pathMax {
			return nil, fmt.Errorf("%s cannot be cached: expected a path below the project", quote(p))
		}
		sorted = sorted && isClean(p) && (i == 0 || pick.Compare(paths[i-1], p) < 0)
	}
	if sorted {
		return paths, nil
	}
	cleaned := make([]string, 0, len(paths))
	for _, p := range paths {
		switch p := path.Clean(p); {
		case p == ".":
		case p == ".." || strings.HasPrefix(p, "../"):
			return nil, fmt.Errorf("%s cannot be cached: expected a path below the project", quote(p))
		default:
			cleaned = append(cleaned, p)
		}
	}
	slices.SortFunc(cleaned, pick.Compare)
	return slices.Compact(cleaned), nil
}

// isClean reports whether path.Clean would return p as it is.
func isClean(p string) bool {
	for len(p) > 0 {
		name, rest, more := strings.Cut(p, "/")
		if name == "" || name == "." || name == ".." || more && rest == "" {
			return false
		}
		p = rest
	}
	return true
}
