# frozen_string_literal: true

# A Ruby worker of interop/soak: worker.rb with one more step, which writes to
# standard input, the record of the soak opened for appending, when it starts and
# when it ends. Being killed in between leaves a start alone.
#
#   INTEROP_WORKER   number of this process, for the record

require_relative "worker"

module Soak
  RECORD = IO.for_fd(0, "a+", autoclose: false)
  WORKER = Integer(ENV.fetch("INTEROP_WORKER"))

  class Step
    include Sidekiq::Job
    sidekiq_options queue: "ruby"

    # A callback of a run is told its state, too.
    def perform(run, number, options, _told = nil)
      record("start", run, number)
      sleep(options["ms"] / 1000.0)
      # Of no state: a step that fails is tried again until it does not.
      if rand < options["fail"]
        record("fail", run, number)
        raise "told to fail"
      end
      record("end", run, number)
      raise "has ended, and is dead" if options["dies"]

      {"step#{number}" => "ruby"}
    end

    private

    # One write, one line.
    def record(what, run, number)
      now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
      RECORD.syswrite(JSON.generate([what, run, number, jid, WORKER, now]) << "\n")
    end
  end
end
