package doctor

import (
	"errors"

	"podlane/executor/pod"
	"podlane/executor/settings"
)

// readSettings reports every mistake in the settings, and tells whether there is
// any use in going on.
func readSettings(r *round, file string, s *settings.Settings, err error) bool {
	for _, e := range each(err) {
		found, hint := explain(e)
		r.say(Result{Name: "settings", Status: Failed, Found: found, Hint: hint})
	}
	if err != nil {
		r.say(Result{Name: "all else", Status: NotTried, Found: "the settings cannot be used", Hint: "podlane.example.toml explains every setting"})
		return false
	}
	if problems := pod.CheckTemplates(s); len(problems) > 0 {
		for _, p := range problems {
			r.say(Result{Name: "settings", Status: Failed, Found: templateProblem(p), Hint: "see docs/pod-templates.md"})
		}
		r.failed = true
		r.missing["settings"] = "no pod can be planned"
		return true
	}
	r.say(Result{Name: "settings", Status: OK, Found: file})
	return true
}

// each takes an error that joins others apart.
func each(err error) []error {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

func templateProblem(p pod.TemplateProblem) string {
	if p.Name == "" {
		return p.Err.Error()
	}
	return "template " + p.Name + ": " + p.Err.Error()
}
