package settings

import (
	"strings"
	"testing"
	"time"
)

func TestCacheChecks(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"bucket", `bucket = "No Bucket"`, `cache.bucket: found "No Bucket", expected the name of a bucket`},
		{"prefix", `prefix = "../x"`, `cache.prefix: found "../x", expected names`},
		{"prefix with a slash", `prefix = "x/"`, `cache.prefix: found "x/", expected names`},
		{"endpoint", `endpoint = "s3.example.com"`, `cache.endpoint: found "s3.example.com", expected a URL`},
		{"endpoint with a bucket", `endpoint = "https://s3.example.com/b"`, `cache.endpoint: found "https://s3.example.com/b", expected a URL`},
		{"size", `max_size = "much"`, `cache.max_size: found "much", expected a size`},
		{"no size", `max_size = "0"`, `cache.max_size: found "0", expected a size`},
		{"overflow", `max_size = "9000000000Ti"`, `cache.max_size: found "9000000000Ti", expected a size`},
		{"files", `max_files = 0`, `cache.max_files: found "0", expected a number above 0`},
		{"days", `expire_days = -1`, `cache.expire_days: found "-1", expected a number of days`},
		{"refresh", `refresh_after = "-1h"`, `cache.refresh_after: found "-1h0m0s", expected a duration from 0s`},
		{"timeout", `timeout = "1s"`, `cache.timeout: found "1s", expected a duration from 10s`},
		{"switch", `immutable = "yes"`, `cache.immutable: found "yes", expected true or false`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("f", "[cache]\n"+tt.text)
			if err == nil || !strings.HasPrefix(err.Error(), "f:2: "+tt.want) {
				t.Errorf("got %v, want a message that starts with %s", err, tt.want)
			}
		})
	}
}

func TestCacheValues(t *testing.T) {
	s, err := Parse("f", "[cache]\nbucket = \"ci-caches\"\nmax_size = \"3Mi\"\nexpire_days = 7")
	if err != nil {
		t.Fatal(err)
	}
	if c := s.Cache; !c.Enabled() || c.MaxBytes() != 3<<20 || c.RefreshAge() != 84*time.Hour {
		t.Errorf("enabled %v, %d bytes, refresh after %s", c.Enabled(), c.MaxBytes(), c.RefreshAge())
	}
	s, err = Parse("f", "[cache]\nbucket = \"ci-caches\"\nrefresh_after = \"72h\"")
	if err != nil || s.Cache.RefreshAge() != 72*time.Hour {
		t.Errorf("refresh after %s, %v", s.Cache.RefreshAge(), err)
	}
	var none Cache
	if none.Enabled() {
		t.Error("caches without a bucket are on")
	}
}
