package settings

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// PodTemplate is a named PodTemplateSpec with the conditions under which jobs
// get it. Conditions are facts that no job can set.
type PodTemplate struct {
	Name string `toml:"name"`
	// Template is YAML or the name of a file with it: see Settings.readTemplates.
	Template string `toml:"template"`
	// File is its name, if it was one.
	File string `toml:"-"`
	// Projects that may have it, by number; none means every project.
	Projects []int64 `toml:"projects"`
	// Protected is set if only jobs of protected refs may have it.
	Protected bool `toml:"protected"`
	// OnRequest is set if a job must ask for it with TemplateVariable. Otherwise
	// each job that fulfils the conditions gets it.
	OnRequest bool `toml:"on_request"`
}

// TemplateVariable is the variable with which a job asks for a template.
const TemplateVariable = "PODLANE_POD_TEMPLATE"

// maxTemplate bounds a template, in bytes: the API server takes no larger pod.
const maxTemplate = 1 << 20

// Fits tells whether a job of that project, on a protected ref or not, may have
// the template.
func (t *PodTemplate) Fits(project int64, protected bool) bool {
	return (len(t.Projects) == 0 || slices.Contains(t.Projects, project)) && (protected || !t.Protected)
}

// readTemplates puts the content of files in the place of their names. A text
// with a line break is a template itself; a relative name belongs to the folder
// of the settings file.
func (s *Settings) readTemplates(d *decoder) {
	read := func(key string, text, name *string) {
		if *text == "" || strings.Contains(*text, "\n") {
			return
		}
		file := *text
		if !filepath.IsAbs(file) {
			file = filepath.Join(filepath.Dir(d.file), file)
		}
		content, err := os.ReadFile(file)
		switch {
		case err != nil:
			d.add(key, fmt.Sprintf("%q", *text), fmt.Sprintf("a file that can be read, or YAML of more than one line: %v", err))
		case len(content) > maxTemplate:
			d.add(key, fmt.Sprintf("a file of %d bytes", len(content)), fmt.Sprintf("at most %d", maxTemplate))
		case strings.TrimSpace(string(content)) == "":
			d.add(key, "an empty file", "a PodTemplateSpec in YAML")
		}
		*text, *name = string(content), file
	}
	read("kubernetes.pod_template", &s.Kubernetes.PodTemplate, &s.Kubernetes.PodTemplateFile)
	for i := range s.PodTemplates {
		t := &s.PodTemplates[i]
		read(fmt.Sprintf("pod_templates[%d].template", i+1), &t.Template, &t.File)
	}
}

func (s *Settings) checkTemplates(c checker) {
	seen := map[string]bool{}
	for i, t := range s.PodTemplates {
		at := fmt.Sprintf("pod_templates[%d].", i+1)
		c.must(dnsLabel.MatchString(t.Name), at+"name", t.Name, "a name of lower-case letters, digits and '-'")
		c.must(!seen[t.Name], at+"name", t.Name, "a name that no other template has")
		seen[t.Name] = true
		c.must(t.Template != "", at+"template", t.Template, "a file, or YAML of more than one line")
	}
}
