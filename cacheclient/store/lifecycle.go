package store

import (
	"context"
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// ExpireDays is after how many days the bucket's lifecycle deletes objects whose
// names begin with prefix; 0 means that it does not. Credentials for caches are
// seldom allowed to know: ErrDenied.
func (s *Store) ExpireDays(ctx context.Context, prefix string) (int, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	out, err := s.client.GetBucketLifecycleConfiguration(ctx, &s3.GetBucketLifecycleConfigurationInput{Bucket: &s.config.Bucket})
	if err != nil {
		err = s.explain(ctx, "read the lifecycle of", s.config.Bucket, err)
		var e *Error
		if errors.As(err, &e) && e.Code == "NoSuchLifecycleConfiguration" {
			return 0, nil
		}
		return 0, err
	}
	days := 0
	for _, rule := range out.Rules {
		of := ""
		if rule.Filter != nil {
			of = aws.ToString(rule.Filter.Prefix)
		}
		if rule.Status != types.ExpirationStatusEnabled || rule.Expiration == nil || !strings.HasPrefix(prefix, of) {
			continue
		}
		if n := int(aws.ToInt32(rule.Expiration.Days)); n > 0 && (days == 0 || n < days) {
			days = n
		}
	}
	return days, nil
}
