# frozen_string_literal: true

module SidekiqFlow::Companion
  # The run that a job is a step of.
  module Run
    # The option of a job that a run calls when a step dies, or at its end: it has the
    # id of the run, and is not a step.
    CALLBACK = "swf_callback"

    module_function

    # The id of the run, or nil for a job that belongs to none.
    def id(job)
      job[Dialect.current.run_id]
    end

    def step?(job)
      !id(job).nil? && !callback?(job)
    end

    def callback?(job)
      job.key?(CALLBACK)
    end

    # The id for a log line, where anything may have been pushed.
    def label(job)
      id(job).to_s[0, 255]
    end
  end
end
