package executor

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// placeholders are a job's secrets by the text that takes their place.
type placeholders struct {
	values map[string]string // by placeholder
}

// placeholderPrefix begins what stands for a secret.
const placeholderPrefix = "REDACTED_"

// shortest is the length of a secret that is replaced wherever it stands. A
// shorter one, "true", say, is replaced as the value of its variable only.
const shortestSecret = 6

var secretName = regexp.MustCompile(`(?i)TOKEN|PASSW|SECRET|KEY|JWT|CREDENTIAL|AUTH([^O]|$)|AUTHORI|COOKIE|PRIVATE`)

// findSecrets finds what must not leave the runner's host: values of variables
// that are not public or look like secrets, registry passwords, job tokens.
func findSecrets(job map[string]any) *placeholders {
	p := &placeholders{values: map[string]string{}}
	variables := func(v any) {
		for _, variable := range objects(v) {
			key := str(variable["key"])
			if variable["public"] == true && variable["masked"] != true && variable["file"] != true && !secretName.MatchString(key) {
				continue
			}
			p.add(key, str(variable["value"]))
		}
	}
	p.add("JOB_TOKEN", str(job["token"]))
	variables(job["variables"])
	for _, service := range objects(job["services"]) {
		variables(service["variables"])
	}
	for i, c := range objects(job["credentials"]) {
		p.add("CREDENTIAL_"+strconv.Itoa(i), str(c["password"]))
	}
	for i, d := range objects(job["dependencies"]) {
		p.add("DEPENDENCY_"+strconv.Itoa(i), str(d["token"]))
	}
	if git, ok := job["git_info"].(map[string]any); ok {
		p.add("REPO_PASSWORD", urlPassword(str(git["repo_url"])))
	}
	return p
}

// urlPassword is the password in a URL that has one.
func urlPassword(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.User == nil || u.Host == "" {
		return ""
	}
	password, _ := u.User.Password()
	return password
}

// add adds a secret. Of a URL that is its password: the rest is needed to run
// get_sources again, say.
func (p *placeholders) add(name, value string) {
	value = cmp.Or(urlPassword(value), value)
	if value == "" {
		return
	}
	for _, v := range p.values {
		if v == value && len(value) >= shortestSecret {
			return
		}
	}
	placeholder := placeholderPrefix + strings.Map(func(r rune) rune {
		if r == '_' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, name)
	for n, base := 2, placeholder; p.values[placeholder] != "" && p.values[placeholder] != value; n++ {
		placeholder = fmt.Sprintf("%s_%d", base, n)
	}
	p.values[placeholder] = value
}

func (p *placeholders) names() []string {
	var names []string
	for name := range p.values {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// clean returns a JSON value with every secret replaced.
func (p *placeholders) clean(v any) any {
	return rewrite(v, p.cleanText, func(object map[string]any) {
		if key, value := str(object["key"]), str(object["value"]); key != "" && value != "" && p.isShort(key, value) {
			object["value"] = placeholderPrefix + key
		}
	})
}

// rewrite returns a JSON value with every string, then every object changed.
func rewrite(v any, text func(string) string, object func(map[string]any)) any {
	switch v := v.(type) {
	case string:
		return text(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = rewrite(v[i], text, object)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, value := range v {
			out[key] = rewrite(value, text, object)
		}
		object(out)
		return out
	}
	return v
}

func (p *placeholders) isShort(key, value string) bool {
	return len(value) < shortestSecret && p.values[placeholderPrefix+key] == value
}

// cleanText replaces the longest secrets first: one may be part of another.
func (p *placeholders) cleanText(s string) string {
	names := p.names()
	slices.SortStableFunc(names, func(a, b string) int { return len(p.values[b]) - len(p.values[a]) })
	for _, name := range names {
		value := p.values[name]
		if len(value) < shortestSecret {
			pattern := regexp.MustCompile(`(` + regexp.QuoteMeta(strings.TrimPrefix(name, placeholderPrefix)) + `=[$'"\\]*)` + regexp.QuoteMeta(value))
			s = pattern.ReplaceAllString(s, "${1}"+name)
			continue
		}
		for _, form := range forms(value) {
			s = strings.ReplaceAll(s, form, name)
		}
	}
	return s
}

// forms are the ways in which a value may stand in a script: as it is, quoted
// for a shell as the runner does, once and twice, in a URL, and in base64.
func forms(value string) []string {
	ansi := func(s string) string {
		return strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`, "\r", `\r`, "\t", `\t`, "!", `\!`).Replace(s)
	}
	posix := func(s string) string {
		return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(s)
	}
	single := strings.ReplaceAll(value, "'", `'\''`)
	all := []string{
		value, strings.TrimSpace(value), ansi(value), ansi(ansi(value)), posix(value), posix(posix(value)), single,
		url.QueryEscape(value), url.PathEscape(value),
		base64.StdEncoding.EncodeToString([]byte(value)), base64.URLEncoding.EncodeToString([]byte(value)),
	}
	// A private key, say, may be written with its lines apart.
	for line := range strings.Lines(value) {
		if line = strings.TrimSpace(line); len(line) >= 16 && line != value {
			all = append(all, line)
		}
	}
	slices.SortStableFunc(all, func(a, b string) int { return len(b) - len(a) })
	return slices.DeleteFunc(slices.Compact(all), func(s string) bool { return len(s) < shortestSecret })
}
