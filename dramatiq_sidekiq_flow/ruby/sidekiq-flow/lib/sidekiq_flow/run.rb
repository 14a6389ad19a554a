# frozen_string_literal: true

module SidekiqFlow::Companion
  # Keys of a payload that a finished step hands on to the next: tenant, locale,
  # time zone and trace. A name that ends in * stands for all that begin so.
  INHERITED = %w[
    cattr cattr_* locale tz traceparent tracestate baggage
    apartment acts_as_tenant multi_tenant
    trace_propagation_headers sentry_user x-datadog-*
  ].freeze

  class << self
    # Which of its two names the gem has here.
    def dialect
      @dialect ||= DIALECTS.fetch(defined?(Sidekiq::Sideline) ? 1 : 0)
    end

    # The one that it does not have.
    def other_dialect
      DIALECTS.find { |other| other != dialect }
    end

    def gem
      dialect.gem
    end

    def run_id(job)
      job[dialect.run_id]
    end

    # What a finished step hands on to the next.
    def inherited(job)
      @inherited ||= inherited_pattern(INHERITED)
      job.select { |key, _| key.match?(@inherited) }
    end

    private

    def inherited_pattern(names)
      /\A(?:#{names.map { |name| Regexp.escape(name.to_s).sub(/\\\*\z/, ".*") }.join("|")})\z/m
    end
  end
end
