# frozen_string_literal: true

module SidekiqFlow::Companion
  # The first jobs of a run, and the jobs that it may call.
  class StartPlan < Plan
    def initialize(tree, run_id:, config:)
      super(tree, [], run_id: run_id, finished: {}, queue: "default", config: config)
    end

    # The field of a record that holds a callback of the run: its payload up to the end of
    # the mapping that is its last argument, which is left open; and its queue
    # (_run_callback.lua).
    def callback(name, job, mapping)
      payload = prepared(job, [], 0)
      payload[Run::CALLBACK] = name.delete_prefix("on_")
      args = payload.delete("args")
      text = Sidekiq.dump_json(payload.merge("args" => [*args, mapping]))
      "#{text.delete_suffix("}]}")}\n#{payload["queue"]}"
    end

    private

    # As Sidekiq::Client does: complex arguments are refused, if the application says so.
    def add(payload)
      verify_json(payload)
      super
    end

    # A job without a queue must be of a class that exists, as in the gem.
    def item(node, job_class, stack, delay)
      Object.const_get(node["class"]) if job_class.is_a?(String) && !node.key?("queue")
      super
    end
  end
end
