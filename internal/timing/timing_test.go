package timing

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTable(t *testing.T) {
	began := time.Unix(1000, 0)
	at := func(s float64) time.Time { return began.Add(time.Duration(s * float64(time.Second))) }
	spans := []Span{
		{Label: "waited for a node", Began: at(0), Took: 2 * time.Second},
		{Label: "pulled images", Began: at(2), Took: 61 * time.Second},
		{Began: at(63), Took: time.Second},
		{Label: "ran the script", Began: at(65), Took: 1500 * time.Millisecond},
		{Label: "ran the script", Began: at(67), Took: 500 * time.Millisecond},
		{Label: "uploaded artifacts", Began: at(68), Took: time.Millisecond},
	}
	table := Summarise(spans, at(70))
	want := "\x1b[0Ksection_start:2000:podlane_times[collapsed=true]\r\x1b[0Kwhere the time went: 1m10s\n" +
		"  waited for a node  2.00s\n" +
		"  pulled images       1m1s\n" +
		"  ran the script     2.00s\n" +
		"  everything else    5.00s\n" +
		"\x1b[0Ksection_end:2000:podlane_times\r\x1b[0K\n"
	if diff := cmp.Diff(want, table.Text(true, time.Unix(2000, 0))); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if text := table.Text(false, time.Unix(2000, 0)); text[:22] != "where the time went: 1" {
		t.Errorf("without sections it begins with %q", text)
	}
	if text := Summarise(nil, began).Text(true, began); text != "" {
		t.Errorf("of nothing it is %q", text)
	}
}
