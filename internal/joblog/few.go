package joblog

import (
	"fmt"
	"strings"
)

// Few joins the first few of many.
func Few(items []string) string {
	const few = 3
	if len(items) <= few {
		return strings.Join(items, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(items[:few], ", "), len(items)-few)
}
