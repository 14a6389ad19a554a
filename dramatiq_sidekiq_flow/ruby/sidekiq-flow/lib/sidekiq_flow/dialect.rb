# frozen_string_literal: true

module SidekiqFlow::Companion
  # The gem was renamed sidekiq-sideline after 0.1.0, and its keys with it.
  Dialect = Struct.new(:name, :run_id, :callbacks, :memory_prefix) do
    def gem
      Sidekiq.const_get(name.capitalize)
    end

    def noop_class
      "Sidekiq::#{name.capitalize}::NoopWorker"
    end

    # Whether a job carries this dialect's keys.
    def of?(job)
      job.key?(run_id) || job.key?(callbacks)
    end
  end

  DIALECTS = [
    Dialect.new("workflow", "workflow_run_id", "workflow_completion_callbacks", "swf:mem"),
    Dialect.new("sideline", "sideline_run_id", "sideline_completion_callbacks", "sl:mem")
  ].freeze
end
