# frozen_string_literal: true

module SidekiqFlow::Companion
  # The job that runs on this thread, and the events that were seen while it runs.
  class Execution
    CURRENT = :flow_execution

    # Fields that a job which is pushed again does not take over.
    OWN = %w[
      class wrapped args queue at created_at enqueued_at retry_count failed_at retried_at
      error_message error_class error_backtrace
    ].freeze

    class << self
      def current
        Thread.current[CURRENT]
      end

      # Yields the execution of a job: the current one if it is this job's.
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

    # +began+: epoch seconds.
    attr_reader :job, :began

    # The error to bury the job with, although nothing was raised.
    attr_accessor :refusal

    def initialize(job)
      @job = job
      @began = Time.now.to_f
    end

    # What the step asks for (see CurrentRun).
    def changes
      @changes ||= Changes.new
    end

    def changes?
      !@changes.nil?
    end

    # Notes that the job was pushed once more, under its own id: the process that
    # performs it then advances the run.
    def pushed_again!
      @pushed_again = true
    end

    def pushed_again?
      @pushed_again
    end

    # Whether a job that is being pushed is this job again.
    def same?(item)
      item["jid"] == @job["jid"] || (!active_job_id.nil? && active_job_id == id_of(item))
    end

    # ActiveJob's own id, which stays the same when ActiveJob retries.
    def active_job_id
      id_of(@job)
    end

    # Makes a job that is being pushed the step that this job is.
    def continue_in(item)
      pushed_again!
      item.merge!(@job.reject { |key, _| OWN.include?(key) }) if Run.step?(@job)
    end

    private

    def id_of(job)
      return unless job["wrapped"] && job["args"].is_a?(Array)

      data = job["args"].first
      data["job_id"] if data.is_a?(Hash)
    end
  end
end
