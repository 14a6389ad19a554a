# frozen_string_literal: true

module SidekiqFlow::Web
  # The routes, and what the views call. Sidekiq 7 and 8 differ in how they register an
  # extension and how they name its views: these are read here.
  module Pages
    INDEX = "workflows"

    VIEWS = Dir[File.join(ROOT, "views", "*.erb")].to_h do |path|
      [File.basename(path, ".erb"), File.read(path, encoding: "UTF-8")]
    end.freeze

    STYLE = File.read(File.join(ROOT, "style.css"), encoding: "UTF-8").freeze

    # The kinds of labels, by the state of a run or of a step.
    LABELS = {
      "done" => "success", "failed" => "danger", "dead" => "danger", "running" => "info", "paused" => "warning",
      "retry" => "warning", "parked" => "warning"
    }.freeze

    # An id that a path holds as it is.
    PLAIN = /\A[\w.:-]+\z/.freeze

    OPTIONS = {name: "workflows", tab: "Workflows", index: INDEX, root_dir: ROOT}.freeze

    class << self
      # Adds the tab; in Sidekiq 8 before the first request.
      def register
        if Sidekiq::Web.respond_to?(:configure)
          Sidekiq::Web.configure { |config| config.register(self, **OPTIONS) }
        else
          Sidekiq::Web.register(self, **OPTIONS)
        end
      end

      # Called by Sidekiq with its application.
      def registered(app)
        app.helpers(Helpers)
        app.get("/workflows") { flow_id ? flow_run : flow_list }
        app.get("/workflows/:id") { flow_run }
        app.post("/workflows") { flow_act }
        app.post("/workflows/:id") { flow_act }
      end
    end

    # Methods of Sidekiq's actions and views.
    module Helpers
      def flow_list
        @filter = %w[state template tag].to_h { |name| [name.to_sym, flow_param(name)] }
        @filter[:state] = nil unless RunRecord::STATES.include?(@filter[:state])
        @list = RunList.new(**@filter, after: flow_param("after"))
        flow_page("list")
      end

      def flow_run
        @page = RunPage.find(flow_id)
        return [404, {"content-type" => "text/plain"}, [t("FlowUnknown")]] unless @page

        flow_page("run")
      end

      # The style is in the head: Live Poll replaces the body, and Sidekiq 8 would refuse
      # the nonce of another response.
      def flow_page(view)
        add_to_head { "<style nonce=\"#{csp_nonce}\">\n#{STYLE}</style>" }
        erb(VIEWS.fetch(view))
      end

      def flow_act
        action = Actions.pressed(request.params)
        action&.perform&.call(flow_id, request.params)
        redirect(flow_path(flow_id))
      end

      # The id in the path, or, for one that a path cannot hold, in the query.
      def flow_id
        id = env["rack.route_params"][:id] || flow_param("id")
        id&.dup&.force_encoding(Encoding::UTF_8)
      end

      def flow_param(name)
        value = request.params[name]
        RunRecord.text(value) if value.is_a?(String) && !value.empty?
      end

      def flow_path(id)
        return "#{root_path}#{INDEX}/#{id}" if PLAIN.match?(id)

        "#{root_path}#{INDEX}?#{URI.encode_www_form(id: id)}"
      end

      def flow_list_path(**params)
        query = URI.encode_www_form(params.compact)
        "#{root_path}#{INDEX}#{"?" unless query.empty?}#{query}"
      end

      def flow_time(seconds)
        seconds ? relative_time(Time.at(seconds)) : ""
      end

      def flow_took(record)
        Text.duration(record.finished - record.started) if record.started && record.finished
      end

      # Of repeated steps: "9,000 of 10,000 done, 1 dead". The rest is open.
      def flow_counts(row)
        done = row.counts.values_at("done", "inferred").compact.sum
        others = row.counts.reject { |state, _| %w[done inferred open].include?(state) }
        [flow_done(done, row.total),
          *others.map { |state, count| "#{Text.number(count)} #{t("FlowStep_#{state}")}" }].join(", ")
      end

      def flow_done(done, total)
        t("FlowDone", done: Text.number(done), total: Text.number(total))
      end

      # The CSS classes of the label of a state.
      def flow_label(state)
        "label label-#{LABELS.fetch(state, "default")}"
      end
    end
  end
end
