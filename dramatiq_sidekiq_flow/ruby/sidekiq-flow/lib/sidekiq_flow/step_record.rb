# frozen_string_literal: true

module SidekiqFlow::Companion
  # What the record of a run holds of one step (_record.lua). The steps of runs that were
  # started by the plain gem have no numbers.
  class StepRecord
    # The option of a step that holds its number.
    NUMBER = "swf_step"

    # The highest number: a record has one bit for each.
    MOST = 10_000_000

    # The number of the first step whose times are not recorded.
    MOST_TIMED = 1000

    PARTS = ["", ":times", ":done", ":failed", ":added"].freeze

    def initialize(job)
      @job = job
      @number = job[NUMBER] if job[NUMBER].is_a?(Integer) && job[NUMBER].between?(1, MOST) && Run.id(job).is_a?(String)
    end

    # The key of the record, or "". A step without a number may end its run, too.
    def key
      (Run.id(@job).is_a?(String) && Run.step?(@job)) ? "swf:flow:#{Run.id(@job)}" : ""
    end

    # All keys of the record of a step that has a number.
    def keys
      @number ? PARTS.map { |part| "#{key}#{part}" } : []
    end

    # The number as an argument of fail.lua, or the jid of a step that has none; "" for a job
    # that is not a step.
    def number
      @number || (key.empty? ? "" : by_jid)
    end

    # The number and the times, as advance.lua reads them. For a step without a number "",
    # or its jid if it had failed.
    def text
      # Its first failure leaves 0; the Web UI subtracts one when it retries a dead job.
      mark = @job.key?("retry_count") ? "!" : ""
      return (mark.empty? || key.empty?) ? "" : "#{mark}#{by_jid}" unless @number

      failures = @job["retry_count"].is_a?(Integer) ? @job["retry_count"] + 1 : 0
      return "#{mark}#{@number}" if @number >= MOST_TIMED

      now = Time.now.to_f
      format("%s%d %.3f %.3f %d %s", mark, @number, Execution.current&.began || now, now, failures, Member.identity)
    end

    # What the record holds of a death, as JSON. +now+: epoch seconds.
    def failure(now)
      return "" if key.empty?

      JSON.generate("jid" => @job["jid"], "class" => @job["wrapped"] || @job["class"], "queue" => @job["queue"],
        "error_class" => @job["error_class"], "error_message" => @job["error_message"].to_s[0, 500].scrub,
        "at" => now)
    end

    private

    def by_jid
      "jid:#{@job["jid"]}"
    end
  end
end
