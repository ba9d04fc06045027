package settings

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// Issue is one thing that is wrong with a settings file.
type Issue struct {
	File string
	// Line is 0 if the key isn't in the file.
	Line     int
	Key      string
	Found    string
	Expected string
}

// Error is one line for people: file, line, key, found, expected.
func (i Issue) Error() string {
	where := i.File
	if i.Line > 0 {
		where = fmt.Sprintf("%s:%d", i.File, i.Line)
	}
	if i.Key == "" {
		return fmt.Sprintf("%s: %s", where, i.Found)
	}
	return fmt.Sprintf("%s: %s: found %s, expected %s", where, i.Key, i.Found, i.Expected)
}

// Load reads a settings file over the defaults. Its error joins one Issue for
// each unknown key, wrong type and impossible value.
func Load(path string) (Settings, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Settings{}, fmt.Errorf("read settings: %w", err)
	}
	return Parse(path, string(data))
}

// Parse is Load for a text that has been read already; file names it in errors.
func Parse(file, text string) (Settings, error) {
	s := Default()
	d := decoder{file: file, lines: map[string]int{}}
	var root map[string]toml.Primitive
	md, err := toml.Decode(text, &root)
	if err != nil {
		return s, syntaxIssue(file, err)
	}
	d.md = md
	d.table("", root, reflect.ValueOf(&s).Elem())
	s.readTemplates(&d)
	if len(d.issues) == 0 {
		s.check(&d)
	}
	return s, d.err()
}

// syntaxIssue makes a line of what the TOML library says about a broken file.
func syntaxIssue(file string, err error) error {
	var parse toml.ParseError
	if errors.As(err, &parse) {
		return Issue{File: file, Line: parse.Position.Line, Found: parse.Message}
	}
	return Issue{File: file, Found: err.Error()}
}

// decoder walks a file's tables along the Settings type. The library's own
// strict mode ends at the first wrong type and knows no line for an unknown
// key; this reports all of them.
type decoder struct {
	file   string
	md     toml.MetaData
	lines  map[string]int
	issues []Issue
}

func (d *decoder) err() error {
	slices.SortStableFunc(d.issues, func(a, b Issue) int { return a.Line - b.Line })
	errs := make([]error, len(d.issues))
	for i, issue := range d.issues {
		errs[i] = issue
	}
	return errors.Join(errs...)
}

func (d *decoder) add(key, found, expected string) {
	d.issues = append(d.issues, Issue{File: d.file, Line: d.lines[key], Key: key, Found: found, Expected: expected})
}

// table decodes the keys of one table into the fields of a struct.
func (d *decoder) table(path string, table map[string]toml.Primitive, into reflect.Value) {
	fields := map[string]reflect.Value{}
	for i := range into.NumField() {
		if name := into.Type().Field(i).Tag.Get("toml"); name != "-" {
			fields[name] = into.Field(i)
		}
	}
	for name, value := range table {
		key := strings.TrimPrefix(path+"."+name, ".")
		data := d.value(key, value)
		field, known := fields[name]
		switch {
		case !known:
			d.add(key, "a key that does not exist", "one of "+strings.Join(sortedKeys(fields), ", "))
		case field.Kind() == reflect.Struct:
			var sub map[string]toml.Primitive
			_, isTable := data.(map[string]any)
			if !isTable || d.md.PrimitiveDecode(value, &sub) != nil {
				d.add(key, describe(data), "a table")
				continue
			}
			d.table(key, sub, field)
		case field.Kind() == reflect.Slice && field.Type().Elem().Kind() == reflect.Struct:
			d.tables(key, value, data, field)
		default:
			if expected := assign(field, data); expected != "" {
				d.add(key, describe(data), expected)
			}
		}
	}
}

// tables decodes a list of tables into a slice of structs.
func (d *decoder) tables(key string, value toml.Primitive, data any, into reflect.Value) {
	var list []map[string]toml.Primitive
	_, isList := data.([]map[string]any)
	if !isList || d.md.PrimitiveDecode(value, &list) != nil {
		d.add(key, describe(data), "a list of tables: [["+key+"]]")
		return
	}
	for i, table := range list {
		item := reflect.New(into.Type().Elem())
		if it, ok := item.Interface().(interface{ setDefaults() }); ok {
			it.setDefaults()
		}
		d.table(fmt.Sprintf("%s[%d]", key, i+1), table, item.Elem())
		into.Set(reflect.Append(into, item.Elem()))
	}
}

// value returns a key's plain value and remembers its line. The library tells
// lines only in errors, so the probe returns one.
func (d *decoder) value(key string, p toml.Primitive) any {
	var probe probe
	var parse toml.ParseError
	if errors.As(d.md.PrimitiveDecode(p, &probe), &parse) {
		d.lines[key] = parse.Position.Line
	}
	return probe.data
}

type probe struct{ data any }

// UnmarshalTOML implements toml.Unmarshaler.
func (p *probe) UnmarshalTOML(data any) error {
	p.data = data
	return errors.New("position")
}

// assign sets a field and returns "", or says what it would have taken.
func assign(field reflect.Value, data any) (expected string) {
	switch into := field.Addr().Interface().(type) {
	case *string:
		if s, ok := data.(string); ok {
			*into = s
			return ""
		}
		return "a string"
	case *Duration:
		s, ok := data.(string)
		if v, err := time.ParseDuration(s); ok && err == nil {
			*into = Duration(v)
			return ""
		}
		return `a duration such as "90s" or "10m"`
	case *bool:
		if b, ok := data.(bool); ok {
			*into = b
			return ""
		}
		return "true or false"
	case *int:
		if n, ok := data.(int64); ok {
			*into = int(n)
			return ""
		}
		return "a whole number"
	case *[]int64:
		items, ok := data.([]any)
		list := make([]int64, 0, len(items))
		for _, item := range items {
			if n, isNumber := item.(int64); isNumber {
				list = append(list, n)
			}
		}
		if ok && len(list) == len(items) {
			*into = list
			return ""
		}
		return "a list of whole numbers"
	case *[]string:
		items, ok := data.([]any)
		list := make([]string, 0, len(items))
		for _, item := range items {
			if s, isString := item.(string); isString {
				list = append(list, s)
			}
		}
		if ok && len(list) == len(items) {
			*into = list
			return ""
		}
		return "a list of strings"
	case *map[string]string:
		table, ok := data.(map[string]any)
		values := make(map[string]string, len(table))
		for k, v := range table {
			if s, isString := v.(string); isString {
				values[k] = s
			}
		}
		if ok && len(values) == len(table) {
			*into = values
			return ""
		}
		return "a table of strings"
	}
	return "nothing: this setting has a type that podlane cannot read"
}

// describe says what was found, without the Go names of things.
func describe(data any) string {
	switch v := data.(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "a list of tables"
	default:
		return fmt.Sprint(v)
	}
}

func sortedKeys(m map[string]reflect.Value) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
