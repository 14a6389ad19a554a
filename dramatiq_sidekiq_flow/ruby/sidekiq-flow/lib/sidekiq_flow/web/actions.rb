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

    # Workers drop what is left of the run.
    def cancel(id, form)
      reason = RunRecord.text(form["reason"])[0, 500]
      Sidekiq.redis do |conn|
        SidekiqFlow::Companion::Scripts.run(conn, "cancel", [RunRecord.key(id), "swf:cancelled"], [reason, KEPT, MOST])
      end
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
