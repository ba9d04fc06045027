// Package redact keeps secrets out of what people read: a type that does not
// print its value, and a writer that takes known values out of a stream.
package redact

import (
	"fmt"
	"io"
)

// Mark stands where a secret was.
const Mark = "[redacted]"

// Secret is a value that prints as [Mark] with every verb, in JSON and in
// text. It is made by [New]; the zero value is no secret at all.
//
// The value lies behind a pointer because fmt does not ask unexported fields
// for their String method: of a struct that contains a Secret it prints an
// address. Compare with Equal, not ==.
type Secret struct{ value *string }

// New wraps a value. The empty string gives the zero Secret.
func New(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{&value}
}

// Reveal returns the value, to be handed to where it is used and nowhere else.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero reports whether there is no value.
func (s Secret) IsZero() bool { return s.value == nil }

// Equal compares values.
func (s Secret) Equal(other Secret) bool { return s.Reveal() == other.Reveal() }

// String returns [Mark], or nothing if there is no value.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return Mark
}

// GoString is for %#v.
func (s Secret) GoString() string { return s.String() }

// Format prints [Mark] whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText serves JSON, TOML and YAML. There is no way back on purpose.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
