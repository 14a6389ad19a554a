# frozen_string_literal: true

# A Ruby worker for interop/chaos.py: worker.rb with one more step, which records
# when it starts and when it ends. Being killed in between leaves a start alone.

require_relative "worker"

module Chaos
  EVENTS = "chaos:events"

  class Step
    include Sidekiq::Job
    sidekiq_options queue: "ruby"

    def perform(run, number, options)
      record("start", run, number)
      sleep(options["ms"] / 1000.0)
      raise "fails at first" if Interop.try_number(jid) <= options["fail"]

      record("end", run, number)
      {"step#{number}" => "ruby"}
    end

    private

    def record(what, run, number)
      Sidekiq.redis { |conn| conn.call("RPUSH", EVENTS, JSON.generate([what, run, number, jid])) }
    end
  end
end
