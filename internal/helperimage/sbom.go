package helperimage

import (
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// document is a bill of materials (https://spdx.github.io/spdx-spec/v2.3/).
type document struct {
	Version       string         `json:"spdxVersion"`
	License       string         `json:"dataLicense"`
	ID            string         `json:"SPDXID"`
	Name          string         `json:"name"`
	Namespace     string         `json:"documentNamespace"`
	Creation      creation       `json:"creationInfo"`
	Packages      []material     `json:"packages"`
	Relationships []relationship `json:"relationships"`
}

type creation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type material struct {
	ID        string      `json:"SPDXID"`
	Name      string      `json:"name"`
	Version   string      `json:"versionInfo"`
	Download  string      `json:"downloadLocation"`
	Analyzed  bool        `json:"filesAnalyzed"`
	License   string      `json:"licenseConcluded"`
	Declared  string      `json:"licenseDeclared"`
	Copyright string      `json:"copyrightText"`
	Checksums []checksum  `json:"checksums,omitempty"`
	Refs      []reference `json:"externalRefs"`
}

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type reference struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

const none = "NOASSERTION"

// billOfMaterials lists the packages of an image and the Go modules of its
// podlane-helper.
func billOfMaterials(version, arch string, lock Lock, digest v1.Hash, helper string) (*document, error) {
	info, err := buildinfo.ReadFile(helper)
	if err != nil {
		return nil, fmt.Errorf("find out what podlane-helper is made of: %w", err)
	}
	d := &document{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: "podlane-helper " + version + " " + arch,
		Namespace: "https://podlane.invalid/spdx/" + digest.Hex,
		// The moment is the packages': the same image has the same document.
		Creation: creation{Created: lock.Date.Format(time.RFC3339), Creators: []string{"Tool: podlane-helper-image"}},
	}
	image := d.add("DESCRIBES", d.ID, "podlane-helper-image", version, none, "pkg:oci/podlane-helper@"+url.QueryEscape(digest.String())+"?arch="+arch)
	image.Checksums = []checksum{{"SHA256", digest.Hex}}
	owner := image.ID
	for _, p := range lock.Of(arch) {
		m := d.add("CONTAINS", owner, p.Name, p.Version, DefaultMirror+"/"+p.Archive+"/"+p.Path,
			"pkg:deb/debian/"+p.Name+"@"+url.QueryEscape(p.Version)+"?arch="+arch+"&distro=debian-"+suiteVersion)
		m.Checksums = []checksum{{"SHA256", p.SHA256}}
	}
	d.add("CONTAINS", owner, "stdlib", info.GoVersion, none, "pkg:golang/stdlib@"+strings.TrimPrefix(info.GoVersion, "go"))
	for _, m := range info.Deps {
		d.add("CONTAINS", owner, m.Path, m.Version, "https://proxy.golang.org/"+m.Path+"/@v/"+m.Version+".zip", "pkg:golang/"+m.Path+"@"+m.Version)
	}
	return d, nil
}

// add adds a part of owner.
func (d *document) add(kind, owner, name, version, download, purl string) *material {
	id := "SPDXRef-" + hex.EncodeToString([]byte(name))
	d.Packages = append(d.Packages, material{
		ID: id, Name: name, Version: version, Download: download, License: none, Declared: none, Copyright: none,
		Refs: []reference{{"PACKAGE-MANAGER", "purl", purl}},
	})
	d.Relationships = append(d.Relationships, relationship{owner, kind, id})
	return &d.Packages[len(d.Packages)-1]
}
