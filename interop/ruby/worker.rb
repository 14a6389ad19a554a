# frozen_string_literal: true

# A Ruby worker:
#
#   REDIS_URL=redis://127.0.0.1:6379/0 sidekiq -r ./worker.rb -q critical -q ruby -c 5
#
# Where INTEROP_REQUIRE has loaded the companion file, it is in use, unless
# INTEROP_COMPANION=0: then only its callback storage may be.
#
#   INTEROP_HEARTBEAT  seconds without a beat after which the companion takes a
#                    worker for dead
#   INTEROP_RECORD   0 for no record of what ran (where Redis is made to refuse it)
#   INTEROP_POLL     seconds between two looks at the schedule and retry sets;
#                    0 for never (api.rb's "poll" then does it, when a test says)
#   INTEROP_TIMEOUT  seconds that a job has to end when the worker is stopped;
#                    at least 3: Sidekiq's idle threads wait up to 2 seconds in
#                    BRPOP, and while one does, it takes what a stopping worker
#                    pushes back to the queue, and is killed with it in hand
#   INTEROP_BEAT     seconds between two beats of Sidekiq, instead of ten
#   INTEROP_BRPOP    seconds that Sidekiq's idle threads wait in BRPOP, instead
#                    of two: a worker that is stopped waits for them

require_relative "jobs"

module Interop
  # Sidekiq has no setting for these.
  def self.replace(owner, name, variable)
    return unless ENV.key?(variable)

    owner.send(:remove_const, name)
    owner.const_set(name, Float(ENV[variable]))
  end
end

Interop.replace(Sidekiq::Launcher, :BEAT_PAUSE, "INTEROP_BEAT")
Interop.replace(Sidekiq::BasicFetch, :TIMEOUT, "INTEROP_BRPOP")

Sidekiq.configure_server do |config|
  config.server_middleware do |chain|
    chain.add Sidekiq::Workflow::Middleware
    # Inside: an execution is recorded before its workflow advances.
    chain.add Interop::Recorder unless ENV["INTEROP_RECORD"] == "0"
  end
  if defined?(SidekiqFlow::Companion) && ENV["INTEROP_COMPANION"] != "0"
    more = defined?(Interop::COMPANION_OPTIONS) ? Interop::COMPANION_OPTIONS : {}
    SidekiqFlow::Companion.configure(config, heartbeat_timeout: ENV.fetch("INTEROP_HEARTBEAT", "60").to_f, **more)
  end
  poll = ENV.fetch("INTEROP_POLL", "1").to_f
  if poll.zero?
    # Sidekiq always starts a poller; this is its own hook for another one.
    config[:scheduled_enq] = Class.new do
      def initialize(_config)
      end

      def enqueue_jobs(*)
      end

      def terminate
      end
    end
  else
    config[:poll_interval_average] = poll
  end
  if ENV.key?("INTEROP_TIMEOUT")
    timeout = Integer(ENV["INTEROP_TIMEOUT"])
    raise ArgumentError, "INTEROP_TIMEOUT must be 3 or more" if timeout < 3

    config[:timeout] = timeout
  end
  config.logger.level = Logger::WARN if ENV["INTEROP_QUIET"] == "1"
end
