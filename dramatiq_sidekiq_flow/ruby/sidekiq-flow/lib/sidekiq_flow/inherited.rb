# frozen_string_literal: true

module SidekiqFlow::Companion
  # The context that a finished step hands on to the next.
  module Inherited
    # Tenant, locale, time zone and trace. A name that ends in * stands for all
    # keys that begin with the rest.
    KEYS = %w[
      cattr cattr_* locale tz traceparent tracestate baggage
      apartment acts_as_tenant multi_tenant
      trace_propagation_headers sentry_user x-datadog-*
    ].freeze

    class << self
      # Hands on further keys, from now on.
      def add(names)
        @pattern = pattern([*KEYS, *names])
      end

      def from(job)
        @pattern ||= pattern(KEYS)
        job.select { |key, _| key.match?(@pattern) }
      end

      private

      def pattern(names)
        alternatives = names.map { |name| Regexp.escape(name.to_s).sub(/\\\*\z/, ".*") }
        /\A(?:#{alternatives.join("|")})\z/m
      end
    end
  end
end
