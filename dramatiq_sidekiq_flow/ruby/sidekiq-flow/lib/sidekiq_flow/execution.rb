# frozen_string_literal: true

module SidekiqFlow::Companion
  # A job that runs on this thread, and what is seen of it meanwhile.
  class Execution
    CURRENT = :flow_execution

    # What a job that is pushed again has of its own.
    OWN = %w[
      class wrapped args queue at created_at enqueued_at retry_count failed_at retried_at
      error_message error_class error_backtrace
    ].freeze

    class << self
      def current
        Thread.current[CURRENT]
      end

      # Yields that of a job; the one that is there already, if it is the job's.
      def of(job)
        before = current
        return yield(before) if before && before.job.equal?(job)

        begin
          yield(Thread.current[CURRENT] = new(job))
        ensure
          Thread.current[CURRENT] = before
        end
      end
    end

    attr_reader :job

    # Why the job is not done, though nothing was raised.
    attr_accessor :refusal

    def initialize(job)
      @job = job
    end

    # The job was pushed once more, under its own id: whoever performs that one
    # advances the run.
    def pushed_again!
      @pushed_again = true
    end

    def pushed_again?
      @pushed_again
    end

    # Whether a job that is being pushed is this one, once more.
    def same?(item)
      item["jid"] == @job["jid"] || (!active_job_id.nil? && active_job_id == id_of(item))
    end

    # ActiveJob's own id, which stays the same when it tries again.
    def active_job_id
      id_of(@job)
    end

    # Makes of a job that is pushed the step that this one is.
    def continue_in(item)
      pushed_again!
      item.merge!(@job.reject { |key, _| OWN.include?(key) }) unless SidekiqFlow::Companion.run_id(@job).nil?
    end

    private

    def id_of(job)
      return unless job["wrapped"] && job["args"].is_a?(Array)

      data = job["args"].first
      data["job_id"] if data.is_a?(Hash)
    end
  end
end
