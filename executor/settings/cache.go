package settings

import (
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Cache says where caches lie and how much of them there may be. Who may read
// and write them is Vault's business: see Vault.CacheRead and Vault.CacheWrite.
type Cache struct {
	// Endpoint is the URL of an S3 server; empty means AWS.
	Endpoint string `toml:"endpoint"`
	// Region is the bucket's; empty means what the AWS SDK finds by itself, or
	// us-east-1 with an endpoint.
	Region string `toml:"region"`
	// Bucket holds the caches; empty turns caches off.
	Bucket string `toml:"bucket"`
	// Prefix is the part of the bucket that is podlane's; empty means all of it.
	Prefix string `toml:"prefix"`
	// PathStyle puts the bucket's name into the path and not into the host.
	PathStyle bool `toml:"path_style"`
	// CAFile holds the certificates that the S3 server's is checked against;
	// empty means the system's.
	CAFile string `toml:"ca_file"`
	// Timeout bounds a cache stage as a whole.
	Timeout Duration `toml:"timeout"`
	// Immutable makes keys that hold no digest of files written once as well.
	Immutable bool `toml:"immutable"`
	// MaxSize bounds what a cache may hold, unpacked; MaxFiles how many entries.
	MaxSize  string `toml:"max_size"`
	MaxFiles int    `toml:"max_files"`
	// ExpireDays is after how many days the bucket's lifecycle deletes objects;
	// 0 means that it does not.
	ExpireDays int `toml:"expire_days"`
	// RefreshAfter is the age from which an entry that a job uses is written
	// anew; 0 means half of ExpireDays.
	RefreshAfter Duration `toml:"refresh_after"`
}

func defaultCache() Cache {
	return Cache{
		Prefix:     "podlane",
		Timeout:    Duration(10 * time.Minute),
		MaxSize:    "50Gi",
		MaxFiles:   2_000_000,
		ExpireDays: 14,
	}
}

// Enabled tells whether there are caches.
func (c *Cache) Enabled() bool { return c.Bucket != "" }

// MaxBytes is MaxSize in bytes.
func (c *Cache) MaxBytes() int64 {
	n, _ := bytesOf(c.MaxSize)
	return n
}

// RefreshAge is the age from which an entry that a job uses is written anew, so
// that the bucket's lifecycle spares it; 0 means never.
func (c *Cache) RefreshAge() time.Duration {
	if c.RefreshAfter > 0 {
		return c.RefreshAfter.D()
	}
	return time.Duration(c.ExpireDays) * 24 * time.Hour / 2
}

var (
	// bucketName is S3's rule (docs.aws.amazon.com, bucketnamingrules), as far
	// as other servers keep it.
	bucketName  = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	cachePrefix = regexp.MustCompile(`^([A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*)?$`)
)

func (c *Cache) check(k checker) {
	if c.Endpoint != "" {
		u, err := url.Parse(c.Endpoint)
		ok := err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil && u.RawQuery == "" && strings.Trim(u.Path, "/") == ""
		k.must(ok, "cache.endpoint", c.Endpoint, `a URL such as "https://s3.example.com"`)
	}
	k.must(c.Bucket == "" || bucketName.MatchString(c.Bucket), "cache.bucket", c.Bucket, "the name of a bucket")
	k.must(cachePrefix.MatchString(c.Prefix), "cache.prefix", c.Prefix, `names of letters, digits, "-", "_" and ".", separated by "/"`)
	k.between("cache.timeout", c.Timeout, 10*time.Second, 24*time.Hour)
	_, err := bytesOf(c.MaxSize)
	k.must(err == nil, "cache.max_size", c.MaxSize, `a size such as "500Mi" or "50Gi"`)
	k.must(c.MaxFiles > 0, "cache.max_files", strconv.Itoa(c.MaxFiles), "a number above 0")
	k.between("cache.refresh_after", c.RefreshAfter, 0, 3650*24*time.Hour)
	k.must(c.ExpireDays >= 0 && c.ExpireDays <= 3650, "cache.expire_days", strconv.Itoa(c.ExpireDays), "a number of days from 0 to 3650")
}

var binaryUnits = []struct {
	suffix string
	bytes  int64
}{{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40}}

// bytesOf reads a whole number of bytes with a unit.
func bytesOf(size string) (int64, error) {
	unit := int64(1)
	for _, u := range binaryUnits {
		if number, ok := strings.CutSuffix(size, u.suffix); ok {
			size, unit = number, u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(size, 10, 64)
	switch {
	case err != nil:
		return 0, err
	case n <= 0 || n > (1<<62)/unit:
		return 0, strconv.ErrRange
	}
	return n * unit, nil
}
