# frozen_string_literal: true

module SidekiqFlow::Companion
  # The run that a job is a step of.
  module Run
    module_function

    # The id of the run, or nil for a job that belongs to none.
    def id(job)
      job[Dialect.current.run_id]
    end

    def step?(job)
      !id(job).nil?
    end

    # The id for a log line, where anything may have been pushed.
    def label(job)
      id(job).to_s[0, 255]
    end
  end
end
