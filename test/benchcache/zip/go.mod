// A module of its own, so that what GitLab's archiver needs does not get into
// the product's go.mod.
module podlane/test/benchcache/zip

go 1.26.5

require (
	github.com/klauspost/compress v1.20.3
	github.com/saracen/fastzip v0.2.0
)

require (
	github.com/saracen/zipextra v0.0.0-20250129175152-f1aa42d25216 // indirect
	golang.org/x/sync v0.11.0 // indirect
	golang.org/x/sys v0.30.0 // indirect
)
