package coordinator

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tunneler/tunneler/workspace/api"
)

// metrics are the coordinator's figures. Every label has few values.
type metrics struct {
	builds          *prometheus.CounterVec
	buildSeconds    *prometheus.HistogramVec
	agents          prometheus.Gauge
	watches         prometheus.Gauge
	watchMessages   *prometheus.CounterVec
	channelMessages *prometheus.CounterVec
	requests        *prometheus.CounterVec
	requestSeconds  *prometheus.HistogramVec
	droppedLogs     *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer, version string) (*metrics, error) {
	const ns = "tunneler_coordinator_"
	m := &metrics{
		builds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: ns + "builds_total", Help: "Builds that have ended here, by transition and final status.",
		}, []string{"transition", "status"}),
		buildSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: ns + "build_duration_seconds", Help: "Time from a build's request to its end.",
			Buckets: prometheus.ExponentialBuckets(0.05, 2.5, 10),
		}, []string{"transition", "status"}),
		agents: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: ns + "agents_connected", Help: "Agents whose channel ends here.",
		}),
		watches: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: ns + "watches", Help: "Agent-connection watches that end here.",
		}),
		watchMessages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: ns + "watch_messages_total", Help: "Messages sent to watches, by kind.",
		}, []string{"kind"}),
		channelMessages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: ns + "channel_messages_total", Help: "Messages received from agents, by type; unknown types are one.",
		}, []string{"type"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: ns + "http_requests_total", Help: "HTTP requests, by route and status.",
		}, []string{"route", "status"}),
		requestSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: ns + "http_request_duration_seconds", Help: "Time to answer an HTTP request; streams and WebSockets are left out.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}, []string{"route"}),
		droppedLogs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: ns + "dropped_log_lines_total", Help: "Log lines that were not stored, by log.",
		}, []string{"log"}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: ns + "info", Help: "1, with the program's version.", ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	for _, c := range []prometheus.Collector{
		info,
		m.builds, m.buildSeconds, m.agents, m.watches, m.watchMessages, m.channelMessages,
		m.requests, m.requestSeconds, m.droppedLogs,
	} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// request counts a request that was answered with status. A stream's duration
// says nothing.
func (m *metrics) request(route string, stream bool, status int, took time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	if !stream {
		m.requestSeconds.WithLabelValues(route).Observe(took.Seconds())
	}
}

// build counts a build that has ended.
func (m *metrics) build(b api.Build) {
	transition, status := b.Transition.String(), b.Status.String()
	m.builds.WithLabelValues(transition, status).Inc()
	m.buildSeconds.WithLabelValues(transition, status).Observe(b.EndedAt.Sub(b.CreatedAt).Seconds())
}
