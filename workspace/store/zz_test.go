package store
import ("testing";"context";"fmt";"time")
func TestZZ(t *testing.T) {
	for range 3 {
	t0 := time.Now()
	s, err := Open(context.Background(), Options{Dir: t.TempDir()})
	if err != nil { t.Fatal(err) }
	t1 := time.Now()
	var bs []*Bucket[doc]
	for i := range 4 { bs = append(bs, openDocs(t, s, fmt.Sprint("b", i))) }
	t2 := time.Now()
	for _, b := range bs { NewCache(context.Background(), b) }
	for _, b := range bs { put(t, b, "k", 1) }; time.Sleep(50*time.Millisecond); t3 := time.Now()
	s.Close()
	fmt.Println("open", t1.Sub(t0), "4 buckets", t2.Sub(t1), "4 caches", t3.Sub(t2), "close", time.Since(t3))
	}
}
