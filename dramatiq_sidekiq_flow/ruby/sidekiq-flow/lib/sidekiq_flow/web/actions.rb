# frozen_string_literal: true

module SidekiqFlow::Web
  # What the buttons on the page of a run do. Each has a line in ALL.
  module Actions
    # +label+: key of its text; +style+: CSS class; +asks+: whether it asks "Are you sure?";
    # +offered+: RunPage -> whether the button is shown; +perform+: run id, what the form
    # holds -> nothing.
    Action = Struct.new(:name, :label, :style, :asks, :offered, :perform)

    # Seconds for which a cancelled run stays in the list that workers read, and the most
    # runs in it: as in Python.
    KEPT = 7 * 86_400
    MOST = 10_000

    # Dead jobs that are retried at once.
    MOST_RETRIED = 1000

    module_function

    # Parked jobs that one call moves, and bytes after which it reads no further one; and
    # barriers that one call arms.
    UNPARKED = [250, 256 * 1024].freeze
    REARMED = 250

    # Workers drop what is left of the run.
    def cancel(id, form)
      halt("cancel", id, form)
    end

    # Workers park what they take of the run.
    def pause(id, form)
      halt("pause", id, form)
    end

    # The parked jobs go where they belong; a heartbeat of any worker pours a large plan.
    def resume(id, _form)
      key = RunRecord.key(id)
      Sidekiq.redis do |conn|
        run(conn, "unpause", [key])
        places = [key, "queues", "schedule", "retry", "swf:fanouts"]
        nil while run(conn, "unpark", places, UNPARKED).first == "MORE"
        conn.call("HKEYS", "#{key}:disarmed").each_slice(REARMED) do |barriers|
          run(conn, "rearm", [key, "queues", *barriers])
        end
      end
    end

    def halt(script, id, form)
      reason = RunRecord.text(form["reason"])[0, 500]
      Sidekiq.redis { |conn| run(conn, script, [RunRecord.key(id), "swf:cancelled"], [reason, KEPT, MOST]) }
    end

    def run(conn, script, keys, arguments = [])
      SidekiqFlow::Companion::Scripts.run(conn, script, keys, arguments)
    end

    # As the button on the page of dead jobs.
    def retry_dead(id, _form)
      dead = Sidekiq::DeadSet.new.scan(pattern(id)).select { |entry| RunJobs.of?(entry.item, id) }
      dead.first(MOST_RETRIED).each(&:retry)
    end

    # The pattern of payloads that hold an id.
    def pattern(id)
      "*#{JSON.generate(id)[1..-2].gsub(/[\\*?\[\]]/) { |letter| "\\#{letter}" }}*"
    end

    ALL = [
      Action.new("retry", "FlowRetryDead", "btn-primary", false,
        ->(page) { page.record.open? && page.dead.positive? }, method(:retry_dead)),
      Action.new("pause", "FlowPause", "btn-warning", false,
        ->(page) { %w[running failed].include?(page.record.state) }, method(:pause)),
      Action.new("resume", "FlowResume", "btn-primary", false,
        ->(page) { page.record.state == "paused" }, method(:resume)),
      Action.new("cancel", "FlowCancel", "btn-danger", true, ->(page) { page.record.open? }, method(:cancel))
    ].freeze

    def offered(page)
      ALL.select { |action| action.offered.call(page) }
    end

    # The action whose button was pressed; nil without.
    def pressed(form)
      ALL.find { |action| form.key?(action.name) }
    end
  end
end
