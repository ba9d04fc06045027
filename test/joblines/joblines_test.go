package joblines

import "testing"

func TestSame(t *testing.T) {
	const want = "1\n2\n3\n10\n11\n"
	for log, ok := range map[string]bool{
		want:                                       true,
		"1\n2\nwarning: x\n3\n10\n11\n":            true,
		"1\n2\n3\n1\nwarning: x\n0\n11\n":          true,
		"1\n2\n3\n10\nwarning: x\n\n11\n":          true,
		"warning: x\n1\n2\n3\n10\n11\nwarning: \n": true,
		"1\n2\n3\n1\n0\n11\n":                      false,
		"1\n2\n3\n10\n":                            false,
		"1\n2\n3\n10\n11\n11\n":                    false,
		"1\n2\nwarning: x\n2\n3\n10\n11\n":         false,
		"1\n3\n2\n10\n11\n":                        false,
		"":                                         false,
	} {
		if err := Same(log, want, Own); (err == nil) != ok {
			t.Errorf("%q: %v", log, err)
		}
	}
}
