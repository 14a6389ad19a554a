# frozen_string_literal: true

module SidekiqFlow
  # No workflow has this run id, or what Redis knows of the run has expired.
  class UnknownRun < StandardError; end

  # Signals to runs (Python's twin is store/run_signals.py).
  module Signals
    # Seconds that a signal is kept at least.
    KEPT = Companion::Lifetimes::RETRY_HORIZON

    # The keys of signal.lua.
    def self.keys(run_id)
      [*%w[flow run signals waiting].map { |name| "swf:#{name}:#{run_id}" }, "schedule", "queues"]
    end
  end

  # Sends a signal to a run: all its steps that wait for the name go on, and so does one
  # whose turn comes later. The data is written to the memory of the run; nil writes nothing.
  #
  # data  what JSON can carry
  #
  # Returns false, with nothing changed, if the run is done or cancelled. Raises UnknownRun.
  def self.signal(run_id, name, data = nil)
    arguments = [WaitFor.name(name), Sidekiq.dump_json(data), Signals::KEPT]
    reply = Sidekiq.redis { |conn| Companion::Scripts.run(conn, "signal", Signals.keys(run_id), arguments) }
    sent = Companion::Replies.signal(reply)
    raise UnknownRun, "There is no run #{run_id.inspect[0, 255]}, so it got no signal" if sent == :unknown

    sent != :ended
  end
end
