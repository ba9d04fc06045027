package settings

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Security is what containers may do unless a pod template says otherwise.
type Security struct {
	// Level is one of the Level constants.
	Level string `toml:"level"`
	// User is who containers run as at the restricted level: "uid:gid". A job
	// can name another with image:kubernetes:user.
	User string `toml:"user"`
	// Capabilities that root in a container keeps, below the restricted level.
	Capabilities []string `toml:"capabilities"`
	// AllowPrivilegeEscalation lets sudo and other setuid programs work.
	AllowPrivilegeEscalation bool `toml:"allow_privilege_escalation"`
}

// Levels of security.
const (
	// LevelDefault lets containers run as root with a few capabilities. It
	// passes the Pod Security level "baseline".
	LevelDefault = "default"
	// LevelRestricted passes the Pod Security level "restricted".
	LevelRestricted = "restricted"
	// LevelAuto is LevelDefault, and LevelRestricted in a namespace that
	// enforces that.
	LevelAuto = "auto"
)

func defaultSecurity() Security {
	return Security{
		Level: LevelAuto,
		User:  "1000:1000",
		// What package managers, su, sshd, kaniko and databases' entrypoints need:
		// Docker's own list without MKNOD, NET_RAW and SETPCAP.
		Capabilities: []string{
			"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETUID", "SYS_CHROOT",
		},
	}
}

var capability = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)

func (s *Security) check(c checker) {
	c.oneOf("security.level", s.Level, LevelAuto, LevelDefault, LevelRestricted)
	uid, _, err := ParseUser(s.User)
	c.must(err == nil && uid > 0, "security.user", s.User, `a user other than root, and a group: "1000:1000"`)
	for _, name := range s.Capabilities {
		c.must(capability.MatchString(name) && !strings.HasPrefix(name, "CAP_"), "security.capabilities", name, `capabilities without CAP_, such as "CHOWN"`)
	}
}

// ParseUser reads "uid" or "uid:gid". The group is nil if there is none.
func ParseUser(text string) (uid int64, gid *int64, err error) {
	user, group, hasGroup := strings.Cut(text, ":")
	number := func(s string) int64 {
		n, parseErr := strconv.ParseUint(s, 10, 31)
		if parseErr != nil {
			err = fmt.Errorf(`%q is not a user: expected numbers, "uid" or "uid:gid"`, text)
		}
		return int64(n)
	}
	uid = number(user)
	if hasGroup {
		g := number(group)
		gid = &g
	}
	return uid, gid, err
}
